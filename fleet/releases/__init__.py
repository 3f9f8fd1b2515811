"""The repository of releases that devices trust (The Update Framework), its keys, and publishing.

The entry point is `publishing.publish`. `workspace.Workspace` opens or creates a repository. `repository_storage` keeps
its files in a folder or an object store. `repository` writes the four signed roles, and `catalog` reads them. `expiry`
warns of expiring metadata, and `rotation` replaces keys. `signing` proves who built a bundle, in a separate environment
(`sign_worker.py`). `git_tags` registers versions in git.
This package may import errors, audit_log, locks, and the agent's core, storage and update.
"""
