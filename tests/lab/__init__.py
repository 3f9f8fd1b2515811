"""A fleet on one Linux machine: Debian devices with their own systemd, sshd and address (docs/fleet/lab.md)."""

from tests.lab.device import Device
from tests.lab.errors import LabError
from tests.lab.lab import Lab

__all__ = ["Device", "Lab", "LabError"]
