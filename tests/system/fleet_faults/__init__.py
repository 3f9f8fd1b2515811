"""Fault tests of a rollout on booted devices: `make test-fleet`, docs/explanation/faults.md."""
