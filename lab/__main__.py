"""`make lab N=10`: boot devices that run until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from lab import Lab, LabError

USE = """\
{count} devices are up after {seconds:.1f} s. Ctrl-C removes them with all their data.

  inventory   {inventory}
  devices     {first} .. {last}; they reach this machine at {host}
  bootstrap   ansible-playbook -i {inventory} playbooks/bootstrap.yml -e edge_agent_root=releases/metadata/1.root.json
  status      ansible-playbook -i {inventory} playbooks/status.yml
  log in      ssh {options} admin@{first}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lab", description="Boot a fleet on this machine; it runs until Ctrl-C.")
    parser.add_argument("--devices", type=int, default=10, metavar="N", help="number of devices (10)")
    parser.add_argument(
        "--arm64", type=int, default=0, metavar="M", help="number of emulated aarch64 devices among them (0)"
    )
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell ignores SIGINT in jobs started with `&`
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        with Lab(options.devices, arm64=options.arm64) as lab:
            use = USE.format(
                count=len(lab.devices),
                seconds=time.monotonic() - started,
                inventory=lab.inventory,
                first=lab.devices[0].address,
                last=lab.devices[-1].address,
                host=lab.host,
                options=" ".join(lab.ssh_options),
            )
            print(use, flush=True)
            signal.pause()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
