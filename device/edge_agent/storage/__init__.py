"""Installed releases on the disk: unpacked from a verified archive into a slot, whole or not there.

Enter at `slots`: `install`, `check`, `prune`. `archive` unpacks with suspicion, `manifest` checks a bundle's files,
`requirements` picks the target that fits this device, `release_file` keeps what the repository said of a release.

May import `update` and `core`. Nothing here decides which release is current.
"""
