"""A directory is complete or absent, even after a kill at any moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from stages.core.files import new_directory

FILES = [f"{number}.txt" for number in range(20)]


def fill(folder: Path, text: str) -> None:
    for name in FILES:
        (folder / name).write_text(text)


@pytest.mark.parametrize("event", ["os.rename", "shutil.rmtree", "os.remove"])
@pytest.mark.parametrize("number", range(3))
def test_a_kill_leaves_the_old_directory_the_new_one_or_none(tmp_path: Path, event: str, number: int) -> None:
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    child = os.fork()
    if child == 0:
        import sys

        calls: list[str] = []

        def watch(name: str, _: object) -> None:
            if name == event:
                calls.append(name)
                if len(calls) > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        with new_directory(target) as folder:
            fill(folder, "new")
            sys.addaudithook(watch)
        os._exit(0)
    os.waitpid(child, 0)

    if target.exists():
        assert {(target / name).read_text() for name in FILES} in ({"old"}, {"new"})
    with new_directory(target) as folder:
        fill(folder, "next")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {(target / name).read_text() for name in FILES} == {"next"}
