"""Measure what the agent costs (`make bench-agent`; docs/explanation/benchmarks-agent.md).

`inprocess` compares predictions with bare interpreters; `service` measures the service over HTTP, also while it
switches releases. May import edge_agent and tests.support.
"""
