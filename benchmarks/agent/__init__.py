"""Measure what the agent costs (`make bench-agent`; docs/explanation/benchmarks-agent.md).

`inprocess` compares predictions with bare interpreters; `service` measures the real service over HTTP, also in a switch.
May import edge_agent and tests.support.
"""
