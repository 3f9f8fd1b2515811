"""What the agent costs: `make bench-agent` is `python -m benchmarks.agent` (docs/explanation/benchmarks-agent.md).

`inprocess` compares predictions with bare interpreters; `service` loads the real service over HTTP, while it switches.
May import edge_agent and tests.support.
"""
