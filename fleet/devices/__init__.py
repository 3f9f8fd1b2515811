"""What a device's agent says, and what that means for a release.

`messages` parses what an agent printed, from what Ansible registered of it; code behind it can rely on the types.
`eligibility` says whether a device runs a release, and why it cannot take one.
May import errors and the agent's core; neither inventory nor releases.
"""
