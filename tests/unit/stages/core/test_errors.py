"""End of a stage after a full disk and after Ctrl-C, and its --help."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.core.errors import run
from tests.support.paths import REPOSITORY

STAGES = [*yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"], "restore", "summary"]


def test_a_full_disk_without_a_file_name_is_reported_with_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def write() -> None:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    with pytest.raises(SystemExit) as end:
        run(write)

    message = capsys.readouterr().err
    assert end.value.code == 1
    assert message.startswith("error: ") and f"{tmp_path} (" in message and " MB free)" in message
    assert ": No space left on device\n  remedy:   free disk space" in message


INTERRUPTED = """
import atexit, os, signal
from stages.core.errors import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a script starts with it ignored

def again():
    os.kill(os.getpid(), signal.SIGINT)

def main():
    atexit.register(again)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()

run(main)
"""


def test_two_interruptions_end_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=60,
    )

    assert done.returncode == 130
    assert done.stderr == (
        "interrupted; run the same command again to continue (make repro restores the outputs that DVC removed)\n"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_the_module_docstring_and_the_exit_codes(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"stages.{stage}" if stage in ("restore", "summary") else f"stages.{stage}.stage")
    monkeypatch.setattr(sys, "argv", [stage, "--help"])

    with pytest.raises(SystemExit) as end:
        module.main()

    message = capsys.readouterr().out
    assert end.value.code == 0
    assert f"usage: python -m stages.{stage} " in message
    assert str(module.__doc__).strip() in message
    assert "Exit codes: 0 done; 1 refused" in message
