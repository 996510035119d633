"""What the benchmarks share: figures and their bounds, adapters to measure with, servers to measure against."""
