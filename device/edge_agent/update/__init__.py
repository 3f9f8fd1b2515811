"""The update client: obtain a verified archive from the repository of releases, by the rules of The Update Framework.

Start reading at `trust`. `Repository.find` decides whether a release may be installed, and `Repository.download`
downloads its archive. `tufclient` calls python-tuf. `fetch` transfers files with the help of the `http_*` modules and
`partial_download`. `offer` describes a release for the other packages, and importing it does not import python-tuf.

May import `core`.
"""
