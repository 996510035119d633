"""Slipway: take a fine-tuned adapter into production on Predibase or LoRAX, on evidence."""

__version__ = "0.1.0"
