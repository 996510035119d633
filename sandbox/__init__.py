"""Predibase and LoRAX on your own machine: rehearse a release without an account and without a GPU.

``python -m sandbox`` starts a Predibase-compatible control plane and a LoRAX-compatible server as processes of their
own. Nothing in ``slipway``, ``tasks`` or ``flows`` imports this package and it imports none of them, so client and
server cannot share a mistake.
"""
