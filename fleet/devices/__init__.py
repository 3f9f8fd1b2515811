"""Interpret the responses of agents on devices.

`messages` parses an agent's output, which Ansible's task results contain, into typed messages. `eligibility` decides
whether a device already runs a release, and lists the reasons why a device cannot run a release. This package may
import documents, errors and the agent's core, but neither inventory nor releases.
"""
