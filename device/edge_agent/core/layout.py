"""The paths of the agent's files on a device.

<state>/                    /var/lib/edge-agent, on a disk that survives a power cut
    state.json              the current, the previous and the bad releases, and the trial (edge_agent.core.state)
    .state.json.partial     disk space for the next state.json, allocated in advance (edge_agent.core.durable)
    state.json.copy         a copy of state.json with a checksum; replaces a damaged state.json when the service starts
    lock                    locked by the process that is changing files here
    install.lock            locked during an installation, which can take hours
    tuf/                    the metadata of The Update Framework that this device trusts
    incoming/               archives that are being downloaded
    releases/<release>/     a slot: one completely installed release
        release.json        the description of the release from the repository
        bundle/             the bundle's files, including manifest.json
    releases/.<release>.partial/   a slot that is being filled; removed if the installation was interrupted
    current                 a link to the slot of the current release, for operators; the agent does not read it
    samples/                captured samples, in a ring of limited size (edge_agent.monitoring.ring)
    counts.json             statistics since the agent switched to the current release
<run>/                      /run/edge-agent, empty after a boot
    control.sock            the command line's connection to the service
    predict.sock            predictions, if a unix socket is configured
    unwritten-state.json    a state that could not be written to state.json (edge_agent.core.kept_state)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of the agent's files, below the folders `paths.state` and `paths.run` of the configuration."""

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
    def kept_state(self) -> Path:
        return self.run / "unwritten-state.json"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    def slot(self, release: str) -> Path:
        """Return the folder of an installed release, such as `digits@1.2.0`."""
        return self.releases / release

    def bundle(self, release: str) -> Path:
        """Return the folder that has the files of an installed release's bundle."""
        return self.slot(release) / "bundle"

    def partial(self, release: str) -> Path:
        """Return the temporary folder in which an installation assembles the slot of a release."""
        return self.releases / f".{release}.partial"
