"""Run `collect` on a task whose sources a test writes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stages.collect import stage as collect
from stages.collect.sources import Context
from stages.core.errors import run
from stages.core.progress import download_progress
from stages.params import Params

SERIES = {
    "kind": "series",
    "group": "machine",
    "time": "time",
    "label": "state",
    "classes": {"0": "normal", "1": "faulty"},
    "channels": {"flow": {"unit": "l/min"}, "pressure": {"unit": "bar"}},
    "image": None,
    "audio": None,
}
IMAGE = SERIES | {
    "kind": "image",
    "time": None,
    "channels": {"grey": {"unit": "level"}},
    "image": {"height": 4, "width": 6},
}
AUDIO = SERIES | {
    "kind": "audio",
    "time": None,
    "channels": {"sound": {"unit": "full scale"}},
    "audio": {"sample_rate_hz": 8000, "samples": 800},
}
RETRY = {"attempts": 3, "backoff_s": 0.01, "timeout_s": 0.3}
CSV = {"type": "csv", "separator": ",", "encoding": "utf-8", "columns": None}
ROWS = "machine,time,flow,pressure,state\nm1,2026-01-01T00:00:00Z,1.5,2,0\nm1,2026-01-01T00:00:01Z,1.6,2.1,1\n"
ARCHIVE: dict[str, Any] = {"select": ["*.csv"], "path": None, "format": CSV}
SYNTHETIC = {
    "type": "synthetic", "seed": 1, "groups": 2, "rows": 50, "rate_hz": 1.0, "noise": 0.1, "fault_share": 0.0,
    "faults": [], "drift_per_hour": 0.0,
}  # fmt: skip


def configure(root: Path, *, data: dict[str, Any] = SERIES, retry: dict[str, Any] = RETRY, **sources: Any) -> None:
    """Write these sources into the default task of the workspace at `root`."""
    path = root / "tasks" / "digits" / "params.yaml"
    task = yaml.load(path.read_text(), yaml.CSafeLoader)
    task["data"] = data
    task["collect"] = {"snapshot": "2026-11-01T00:00:00Z", "retry": retry, "sources": sources}
    path.write_text(json.dumps(task))  # JSON is also YAML


def succeed() -> None:
    """Run collect in this process; fail the test with its message if it reports an error."""
    report = io.StringIO()
    try:
        with contextlib.redirect_stderr(report), mock.patch.object(sys, "argv", ["collect"]):
            run(collect.main)
    except SystemExit:
        pytest.fail(report.getvalue())


def refuse(capsys: pytest.CaptureFixture[str]) -> str:
    """Run collect, which must fail with exit code 1, without a traceback and without writing; return its message."""
    before = digests()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end, mock.patch.object(sys, "argv", ["collect"]):
        run(collect.main)
    report = capsys.readouterr().err
    assert end.value.code == 1
    assert report.startswith("error: ")
    assert "Traceback" not in report
    assert digests() == before
    return report


def digests() -> dict[str, bytes]:
    """Return every file below data/ with its content."""
    return {str(p): p.read_bytes() for p in sorted(Path("data").rglob("*")) if p.is_file()}


def read_snapshot(name: str) -> pa.Table:
    return pq.read_table(collect.SNAPSHOT / name / "part-00000.parquet")


def provenance() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(collect.PROVENANCE.read_text())
    return value


def command() -> subprocess.CompletedProcess[str]:
    """Run collect as a user does, in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "stages.collect"], capture_output=True, text=True, check=False, timeout=60
    )


def start() -> subprocess.Popen[str]:
    """Start collect in the background with the default action for SIGINT, which a shell's `&` would disable."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.collect"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def context(params: Params) -> Context:
    """Return the context of a source, for tests of single modules."""
    return Context(
        name="test",
        data=params.data,
        snapshot=params.collect.snapshot,
        retry=params.collect.retry,
        scratch=Path("scratch"),
        progress=download_progress(),
        stop=threading.Event(),
    )


def tar(*members: tuple[str, str] | tarfile.TarInfo, mode: Any = "w:gz") -> bytes:
    """Return a tar archive of (name, text) pairs and of prepared members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1].encode())
                archive.addfile(info, io.BytesIO(member[1].encode()))
    return packed.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return packed.getvalue()


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lay(root: Path, **files: bytes | str) -> None:
    """Write files below `root`; in a name, `__` stands for `/` and the last `_` for the dot."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def cloud(url: str | Path, **files: Any) -> dict[str, Any]:
    return {"type": "cloud", "url": str(url), "files": ARCHIVE | files}


def archived(url: str, digest: str | None = None, **files: Any) -> dict[str, Any]:
    return {"type": "external_api", "url": url, "sha256": digest, "archive": ARCHIVE | files}


def paged(url: str, **pages: Any) -> dict[str, Any]:
    return {"type": "external_api", "url": url, "pages": {"rows": "data.rows", "next": None, "columns": None} | pages}


LARGE = tar(("rows.csv", ROWS), ("filler.bin", "x" * 100_000), mode="w")
