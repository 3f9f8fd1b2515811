"""Responses from devices' agents, and what they mean for a release.

`messages` parses what an agent printed from the task results that Ansible registered; code behind it relies on types.
`eligibility` decides whether a device already runs a release, and why a device cannot take one.
May import documents, errors and the agent's core, but neither inventory nor releases.
"""
