"""Publish releases to a repository that devices trust (The Update Framework), and manage its keys.

The entry point is `publishing.publish`. `workspace.Workspace` opens or creates a repository. `repository_storage` keeps
the repository's files in a folder or an object store. `repository` reads, signs and writes the metadata of the four TUF
roles. `catalog` lists, finds and withdraws releases. `expiry` warns of expiring metadata, and `rotation` replaces keys.
`signing` signs and verifies bundles with a library that runs in a separate environment (`sign_worker.py`). `git_tags`
registers versions in git.
This package may import errors, audit_log, locks, and the agent's packages core, storage and update.
"""
