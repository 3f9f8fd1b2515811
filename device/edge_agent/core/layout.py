"""Where the agent keeps what on a device.

<state>/                    /var/lib/edge-agent, on a disk that survives a power cut
    state.json              which release is current, previous, on trial, bad (edge_agent.core.state)
    state.json.copy         the same with its checksum, for a service that finds state.json damaged
    lock                    held by whatever changes something here
    tuf/                    metadata of The Update Framework, as trusted so far
    incoming/               archives that are being downloaded, and what has come of them
    releases/<release>/     a slot: one installed release, complete
        release.json        what the repository said of it
        bundle/             the bundle's files, manifest.json among them
    releases/.<release>.partial/   a slot being filled; worth nothing
    current                 a link to the current slot, for people; the agent reads state.json
    samples/                captured samples, a bounded ring
    counts.json             what was counted since the switch
<run>/                      /run/edge-agent, gone after a boot
    control.sock            how the command line speaks to the service
    predict.sock            predictions, where a unix socket is configured
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below the two folders."""

    state: Path
    run: Path

    @property
    def state_file(self) -> Path:
        return self.state / "state.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def install_lock(self) -> Path:
        return self.state / "install.lock"

    @property
    def tuf(self) -> Path:
        return self.state / "tuf"

    @property
    def incoming(self) -> Path:
        return self.state / "incoming"

    @property
    def releases(self) -> Path:
        return self.state / "releases"

    @property
    def current_link(self) -> Path:
        return self.state / "current"

    @property
    def samples(self) -> Path:
        return self.state / "samples"

    @property
    def counts(self) -> Path:
        return self.state / "counts.json"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    def slot(self, release: str) -> Path:
        """The folder of an installed release, such as `digits@1.2.0`."""
        return self.releases / release

    def bundle(self, release: str) -> Path:
        return self.slot(release) / "bundle"

    def partial(self, release: str) -> Path:
        return self.releases / f".{release}.partial"
