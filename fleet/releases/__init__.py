"""The repository of releases that devices trust (The Update Framework), the keys that sign it, and publishing.

Enter at `publishing.publish`; `workspace.Workspace` opens or makes a repository wherever it is (`store`). `repository`
writes the four signed roles, `catalog` reads them, `expiry` and `rotation` renew metadata and keys. `signing` proves
who built a bundle, in a separate environment (`sign_worker.py`); `git_tags` registers versions in git.
May import errors, audit, locks, and the agent's core, storage and update.
"""
