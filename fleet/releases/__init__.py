"""The repository of releases that devices trust (The Update Framework), the keys that sign it, and publishing.

`publishing.publish` makes a bundle a release; `workspace.Workplace` opens a repository wherever it is (`store`), or
makes one. `repository` has the four roles, `catalog` what they list, `expiry` and `rotation` keep them good.
`signing` is about who built a bundle; it runs sign_worker.py in an environment of its own. `git_tags` registers
versions in git. May import errors, audit, locks, and the agent's core, storage and update.
"""
