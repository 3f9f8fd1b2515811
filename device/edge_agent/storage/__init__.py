"""Installed releases on the disk: a verified archive is unpacked into a slot, completely or not at all.

Enter at `slots` (install, verify, prune) and at `target_selection.select_target`, which chooses the target that a
device runs. `archive` unpacks an untrusted archive safely, `manifest` checks a bundle's files, `release_file` stores
the repository's description of a release.

May import `update` and `core`. Nothing here decides which release is current.
"""
