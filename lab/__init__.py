"""A fleet on one Linux machine: Debian devices with their own systemd, sshd and address (docs/fleet/lab.md)."""

from lab.device import Device
from lab.errors import LabError
from lab.lab import Lab

__all__ = ["Device", "Lab", "LabError"]
