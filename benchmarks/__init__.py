"""Benchmarks: `make bench` (pipeline), `make bench-agent`, `make bench-fleet`; `python -m benchmarks.prepare`.

Each benchmark compares within one run and prints ratios. None has a time limit that can fail, since seconds differ
between machines. They may import every package of the project and tests.support; no package imports them.
"""
