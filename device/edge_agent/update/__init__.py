"""The update client: obtain a verified archive from the repository of releases, by the rules of The Update Framework.

Enter at `trust`: `Repository.find` decides whether a release may be installed, `Repository.download` downloads its
archive. `tufclient` wraps python-tuf; `fetch`, `http_deadlines` and `partial_download` transfer files. `offer`
describes a release for the other packages, without importing a client.

May import `core`.
"""
