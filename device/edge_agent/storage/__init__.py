"""Store installed releases on the disk. A verified archive is unpacked into a slot, completely or not at all.

Start reading at `slots` (install, verify, prune) and at `target_selection.select_target`, which chooses the target that
a device runs. `archive` unpacks an untrusted archive safely, `manifest` checks a bundle's files, and `release_file`
stores the repository's description of a release.

May import `update` and `core`. This package does not decide which release is current.
"""
