"""sharedgrad measured, beside PyTorch where it is installed: ``python -m benchmarks --help``."""
