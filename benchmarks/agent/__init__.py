"""Measure what the agent costs (`make bench-agent`; docs/explanation/benchmarks-agent.md).

`inprocess` compares predictions with bare interpreters; `service` measures the service over HTTP, also during switches.
May import edge_agent and tests.support.
"""
