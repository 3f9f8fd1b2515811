"""Publish releases to a signed repository that devices trust, and manage the keys of the repository.

The repository follows The Update Framework (TUF). The entry point is `publishing.publish`. `workspace.Workspace` opens
or creates a repository. `repository_storage` keeps the repository's files in a folder or an object store. `repository`
reads, signs and writes the metadata of the four TUF roles. `catalog` lists, finds and withdraws releases. `expiry`
warns of metadata that expires soon, and `rotation` replaces keys. `signing` signs and verifies bundles with a library
that runs in a separate environment (`sign_worker.py`). `git_tags` creates the git tags of published versions.

This package may import errors, audit_log, locks, and the agent's packages core, storage and update.
"""
