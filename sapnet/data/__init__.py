"""Blurred/sharp pairs: folders, benchmarks, the synthetic set."""
