"""From the repository of releases to a verified archive on the disk, by The Update Framework's rules.

Enter at `trust`: `Repository.find` says whether a release may be installed, `Repository.download` brings its archive.
`tufclient` wraps python-tuf, `fetch` and the modules beside it transfer files. `offer` is what others need to know of
a release, without the imports of a client.

May import `core`.
"""
