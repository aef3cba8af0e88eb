"""Benchmarks: `pytest bench/ --benchmark`; without the option a smoke test at tiny sizes."""
