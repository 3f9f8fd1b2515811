"""Benchmarks: `make bench` (pipeline), `make bench-agent`, `make bench-fleet`; `python -m benchmarks.prepare`.

Each benchmark compares the measurements of one run and prints ratios. No benchmark fails because of a time limit, since
durations differ between machines. Benchmarks may import every package of the project and tests.support. No package
imports them.
"""
