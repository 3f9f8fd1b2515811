"""OPERATE: publish releases, drive and judge rollouts. `python -m fleet --help`."""
