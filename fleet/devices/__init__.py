"""Interpret responses from devices' agents.

`messages` parses the output of an agent, which Ansible registers in task results, into typed messages.
`eligibility` decides whether a device already runs a release, and why a device cannot run one.
This package may import documents, errors and the agent's core, but neither inventory nor releases.
"""
