"""Fault tests of rollouts on booted devices (`make test-fleet`, docs/explanation/faults.md)."""
