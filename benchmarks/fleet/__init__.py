"""Measure what a rollout costs its controller (`make bench-fleet`; docs/explanation/benchmarks-fleet.md).

`namespaces` starts hundreds of light devices on one machine; `runs` rolls out over them, also with the plain playbook
in `plain/`. May import fleet, edge_agent, lab and tests.support.
"""
