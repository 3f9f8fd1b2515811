"""A fleet on one Linux machine: Debian devices with their own systemd, sshd and address (docs/how-to/run-a-lab.md).

`with Lab(3) as lab:` boots three (lab/lab.py); `make lab` is `python -m lab`. `lab.agents` has the agent installed on
them, `lab.arm64` runs single programs of aarch64. Used by tests and benchmarks; it imports fleet.wheelhouse alone.
"""

from lab.device import Device
from lab.errors import LabError
from lab.lab import Lab

__all__ = ["Device", "Lab", "LabError"]
