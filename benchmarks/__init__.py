"""Benchmarks, never timed tests: `make bench`, `bench-agent`, `bench-fleet`; `python -m benchmarks.prepare`.

Each compares in one run and prints ratios. They may import every package of the project, and tests.support.
"""
