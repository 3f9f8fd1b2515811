"""Repair and restoration before and after a run of DVC, on a small pipeline."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stages.clone import ENVIRONMENT, REPOSITORY, call, commit, stages_run

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  first:
    cmd: echo first > first.txt
    deps: [source.txt]
    outs: [first.txt]
  second:
    cmd: cat first.txt first.txt > second.txt
    deps: [first.txt]
    outs: [second.txt]
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose two stages have run; dvc.lock is committed."""
    root = tmp_path_factory.mktemp("origin")
    call(root, "git", "init", "--quiet", "--initial-branch=main")
    call(root, "dvc", "init", "--quiet")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "source.txt").write_text("source\n")
    (root / ".gitignore").write_text(".work/\n")
    call(root, "dvc", "repro")
    commit(root)
    return root


@pytest.fixture
def built(origin: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(origin, tmp_path / "built", symlinks=True))


def restore(root: Path, *options: str, path: str = ENVIRONMENT["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.restore", *options],
        cwd=root,
        env={**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == []


def test_outputs_that_went_missing_come_back(built: Path) -> None:
    (built / "first.txt").unlink()

    done = restore(built)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "restored from the last successful run: first.txt\n"
    assert (built / "first.txt").read_text() == "first\n"


def test_a_clone_whose_cache_is_empty_and_whose_remote_is_out_of_reach_says_nothing(
    built: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    call(built, "dvc", "remote", "add", "--default", "store", "http://127.0.0.1:9/store")
    commit(built)
    clone = tmp_path_factory.mktemp("clone")
    call(clone, "git", "clone", "--quiet", str(built), ".")

    for options in ([], ["--lock"]):
        done = restore(clone, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    assert not (clone / "first.txt").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a\0b\n", b"\xff\xfe\n", b"schema: '2.0'\nstages:\n  first:\n    cmd: ec"]
)
def test_a_damaged_lock_file_is_replaced_by_the_last_commits_and_kept_aside(built: Path, content: bytes) -> None:
    lock = built / "dvc.lock"
    complete = lock.read_bytes()
    lock.write_bytes(content)

    done = restore(built, "--lock")

    assert done.returncode == 0, done.stderr
    assert "restored from the last commit (a copy is in .work/dvc.lock.damaged)" in done.stdout
    assert lock.read_bytes() == complete
    assert (built / ".work/dvc.lock.damaged").read_bytes() == content


def test_where_there_is_no_git_a_damaged_lock_file_goes_and_the_run_cache_brings_all_back(
    built: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lock = built / "dvc.lock"
    complete = lock.read_bytes()
    lock.write_bytes(complete[: len(complete) // 2])

    done = restore(built, "--lock", path=str(tmp_path_factory.mktemp("empty")))

    assert done.returncode == 0, done.stderr
    assert not lock.exists()
    assert stages_run(call(built, "dvc", "repro").stdout) == []
    assert lock.read_bytes() == complete


def test_a_merge_conflict_is_left_to_the_person(built: Path) -> None:
    lock = built / "dvc.lock"
    for branch, word in (("theirs", "second"), ("ours", "third")):
        call(built, "git", "switch", "--quiet", "--create", branch, "main")
        (built / "dvc.yaml").write_text(PIPELINE.replace("echo first", f"echo {word}"))
        call(built, "dvc", "repro")
        commit(built)
    ours = lock.read_bytes()
    assert call(built, "git", "merge", "theirs", check=False).returncode == 1
    conflict = lock.read_bytes()

    refused(restore(built, "--lock"), "dvc.lock", "conflict markers", "git checkout --ours dvc.lock")
    assert lock.read_bytes() == conflict

    call(built, "git", "checkout", "--quiet", "--ours", "dvc.lock", "dvc.yaml")
    assert restore(built, "--lock").returncode == 0
    assert stages_run(call(built, "dvc", "repro").stdout) == []
    assert lock.read_bytes() == ours


def test_a_folder_in_its_place_is_named(built: Path) -> None:
    (built / "dvc.lock").unlink()
    (built / "dvc.lock").mkdir()

    refused(restore(built, "--lock"), "dvc.lock", "not a regular file", "remove dvc.lock")


@pytest.mark.parametrize(
    ("path", "content", "named"),
    [("dvc.yaml", "stages: [", "dvc.yaml"), ("dvc.yaml", "stages:\n  a: {cmd: '${b}'}\n", "Could not find 'b'")],
)
def test_a_broken_pipeline_is_named_by_one_message(built: Path, path: str, content: str, named: str) -> None:
    (built / path).write_text(content)

    refused(restore(built), "earlier outputs were not restored", named)


def test_outside_a_git_repository_it_says_so(built: Path) -> None:
    (built / ".git").rename(built / ".git-away")

    refused(restore(built), "is not a git repository", "git init", "dvc config core.no_scm true")


def test_a_run_that_is_under_way_is_named_before_anything_starts(built: Path) -> None:
    (built / "dvc.yaml").write_text(PIPELINE.replace("echo first >", "cat; echo first >"))
    with subprocess.Popen(
        ["dvc", "repro"], cwd=built, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        while "> cat; echo first" not in first.stdout.readline():
            assert first.poll() is None

        refused(restore(built, "--lock"), f"process {first.pid} is running here: ", "wait for it to finish")

        first.communicate()
    assert restore(built, "--lock").returncode == 0
