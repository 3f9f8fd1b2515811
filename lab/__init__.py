"""A fleet on one Linux machine: Debian devices with their own systemd, sshd and address (docs/how-to/run-a-lab.md).

`with Lab(3) as lab:` boots three devices (lab/lab.py); `make lab` runs `python -m lab`. `lab.agents` provides devices
with the agent installed, `lab.arm64` runs single aarch64 programs. Used by tests and benchmarks. Of the other packages,
it may import only fleet.wheelhouse.
"""

from lab.device import Device
from lab.errors import LabError
from lab.lab import Lab

__all__ = ["Device", "Lab", "LabError"]
