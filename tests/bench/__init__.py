"""The parts of tests/bench_agent.py."""
