"""Count how often a call path changes modules. `python -m tests.support.call_path` prints three main operations.

The path is the order in which an operation calls the project's functions for the first time. A *stop* is a call that
enters another module than the call before; a *return* is a stop in a module that the path entered earlier.
Modules that begin with GROUND are not counted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType

from tests.support.paths import REPOSITORY

SOURCES = {REPOSITORY: ("fleet", "stages"), REPOSITORY / "device": ("edge_agent",)}
# Everything uses these, as it uses the standard library: errors, durable writes, progress, the audit log.
GROUND = ("edge_agent.core.", "stages.core.", "fleet.errors", "fleet.audit_log")


@dataclass
class CallPath:
    """The modules that a call path enters, in order. A module that is entered again is listed again."""

    modules: list[str] = field(default_factory=list)

    @property
    def stops(self) -> int:
        return len(self.modules)

    @property
    def returns(self) -> int:
        return self.stops - len(set(self.modules))

    def __str__(self) -> str:
        counts = {name: self.modules.count(name) for name in dict.fromkeys(self.modules)}
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"{len(counts)} modules, {self.stops} stops, {self.returns} returns: {listed}"


@contextmanager
def traced() -> Iterator[CallPath]:
    """Record the call path of the block in this thread. The result is complete when the block ends."""
    order: list[str] = []
    traced_functions: set[CodeType] = set()
    path = CallPath()

    def record_call(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code not in traced_functions and not code.co_name.startswith("<"):
            traced_functions.add(code)
            name = module_name(Path(code.co_filename))
            if name and not name.startswith(GROUND):
                order.append(name)

    sys.setprofile(record_call)
    try:
        yield path
    finally:
        sys.setprofile(None)
        path.modules += [name for name, _ in groupby(order)]


def module_name(file: Path) -> str | None:
    """Return the dotted name of a module of the project, or None for any other file."""
    for root, packages in SOURCES.items():
        if file.is_relative_to(root) and file.relative_to(root).parts[0] in packages:
            return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    return None


def validation(folder: Path) -> CallPath:
    """Run the stage `validate` on one source, from reading its columns to its quality figures."""
    from stages.core.files import new_directory
    from stages.params import load
    from stages.tables.engine import Engine
    from stages.tables.parquet import list_parquet_files
    from stages.validate.check_sources import check_sources, flag_source
    from stages.validate.stage import SNAPSHOT
    from tests.support.stages.contract import SERIES, series_rows, write_rows, write_task

    with contextlib.chdir(folder):
        write_task(folder, SERIES)
        write_rows(folder, series_rows())
        params = load()
        with Engine(params.compute) as engine, new_directory(Path("out")), traced() as path:
            flagged = flag_source(engine, "rig", list_parquet_files(SNAPSHOT / "rig"), [], params)
            check_sources(engine, [flagged], params)
    return path


def publish(folder: Path) -> CallPath:
    """Run `fleet publish` for a first release, from the parsed options to the result."""
    from fleet.cli import main
    from tests.support.agent.bundles import bundle
    from tests.support.fleet.publishing import Publisher

    archive = bundle(folder / "built").archive
    publisher = Publisher(folder / "publisher")
    os.environ |= {"FLEET_KEYS": str(publisher.keys)}
    options = main.parser().parse_args(["publish", str(archive), "--version", "1.0.0"])
    with contextlib.chdir(publisher.folder), traced() as path:
        options.run(options)
    return path


def deploy(folder: Path) -> CallPath:
    """Run `edge-agent deploy` on a device that runs a release: install the next release and switch to it."""
    from edge_agent.lifecycle import operations

    from tests.support.agent.cli import Device
    from tests.support.agent.releases import NEW, OLD, two_releases

    device = Device(folder / "device", two_releases(folder).repository)
    operations.deploy(device.config, OLD)
    with traced() as path:
        operations.deploy(device.config, NEW)
    device.remove()
    return path


def main() -> None:
    for operation in (publish, deploy, validation):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{operation.__name__}: {operation(Path(folder))}")


if __name__ == "__main__":
    main()
