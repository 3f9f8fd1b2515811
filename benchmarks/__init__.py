"""Benchmarks: `make bench` (pipeline), `make bench-agent`, `make bench-fleet`; `python -m benchmarks.prepare`.

Each compares in one run and prints ratios; none is a test with a time limit, since seconds differ between machines.
They may import every package of the project, and tests.support; nothing imports them.
"""
