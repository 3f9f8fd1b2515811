"""fleet.records.record_files: an invalid file of a record is named, and never used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.errors import ConfigurationError
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.rollout.step_results import PreflightResult
from tests.support.fleet.rollouts import NEW, Json, controller, declared, done, folder, status_json
from tests.unit.fleet.records.test_rollout_folder import VERDICT, begin_rollout

CANARY = {"name": "canary", "devices": ["a"]}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_a_state_of_another_program_is_named(tmp_path: Path, content: str) -> None:
    record = begin_rollout(tmp_path)
    (record.folder / "state.json").write_text(content)

    with pytest.raises(ConfigurationError, match=r"state\.json"):
        record.load()


@pytest.mark.parametrize(
    "changed",
    [
        {"devices": []},
        {"devices": {"a": None}},
        {"devices": {"a": {"wave": "canary", "release": 5}}},
        {"devices": {"a": {"wave": "canary", "release": "digits@1.1.0", "of a later version": 1}}},
        {"devices": {}},  # which leaves a device of the wave without a state
        {"waves": {}},
        {"waves": ["canary"]},
        {"waves": [{"name": "canary", "devices": None}]},
        {"waves": [{**CANARY, "status": "done"}]},
        {"waves": [{**CANARY, "verdict": "pass"}]},
        {"waves": [{**CANARY, "verdict": {"reason": ""}}]},
        {"waves": [{**CANARY, "verdict": {**VERDICT, "checks": [{"name": "bake"}]}}]},
        {"waves": [{**CANARY, "lost": {"reason": "", "devices": ["a"]}}]},
        {"devices": {"a": {"wave": "gone", "release": "digits@1.1.0", "touched": True}}},
        {"owner": None},
        {"owner": {"host": "here", "pid": "one", "started": 0.0}},
        {"owner": {"host": "here", "pid": -1, "started": 0.0}},
        {"status": []},
        {"status": "ended"},
        {"reason": None},
    ],
)
def test_a_state_of_another_shape_is_named(tmp_path: Path, changed: dict[str, object]) -> None:
    record = begin_rollout(tmp_path)
    file = record.folder / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    with pytest.raises(ConfigurationError, match=r"state\.json: not a rollout's record") as caught:
        record.load()

    assert next(iter(changed)) in caught.value.found and "move its folder away" in caught.value.remedy


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"fleet": None}, "fleet"),
        ({"inventory": 5}, "inventory"),
        ({"only": "a"}, "only"),
        ({"commit": 7}, "commit"),
        ({"by": ["anna"]}, "by"),
        ({"size": "4"}, "size"),
        ({"rules": []}, "rules"),
        ({"rules": {"waves": 5}}, "rules.waves"),
        ({"rules": {"budget": {"failed": "some"}}}, "rules.budget.failed"),
        ({"devices": []}, "devices"),
        ({"devices": {"a": NEW}}, "devices.a"),
        ({"devices": {"a": {"wave": 0}}}, "devices.a.release"),
        ({"devices": {"a": {"release": "pump@9.0.0"}}}, "releases: no entry for pump@9.0.0"),
        ({"releases": []}, "releases"),
        ({"releases": {NEW: {"targets": ["onnx-fp32"]}}}, f"releases.{NEW}.targets"),
        ({"releases": {NEW: {"targets": {}, "sha256": 5}}}, f"releases.{NEW}.sha256"),
    ],
)
def test_a_plan_of_another_shape_is_named(tmp_path: Path, changed: Json, field: str) -> None:
    file = begin_rollout(tmp_path).folder / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    with pytest.raises(ConfigurationError, match=r"plan\.json: not a rollout's record") as caught:
        _ = Record(file.parent).plan

    assert f"({field}" in caught.value.found and "correct the file" in caught.value.remedy


@pytest.mark.parametrize("field", ["schema_version", "fleet", "size", "rules", "devices", "releases"])
def test_a_plan_without_a_required_field_is_named(tmp_path: Path, field: str) -> None:
    file = begin_rollout(tmp_path).folder / "plan.json"
    file.write_text(json.dumps({name: each for name, each in json.loads(file.read_text()).items() if name != field}))

    with pytest.raises(ConfigurationError, match=rf"plan\.json: .*{field}: found nothing; Field required"):
        _ = Record(file.parent).plan


def test_the_error_of_a_damaged_plan_has_four_parts(tmp_path: Path) -> None:
    file = begin_rollout(tmp_path).folder / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "inventory": 5}))

    with pytest.raises(ConfigurationError) as caught:
        _ = Record(file.parent).plan

    assert str(caught.value).splitlines() == [
        f"{file}: not a rollout's record (inventory: found 5; Input should be a valid string)",
        "  expected: the content that this program wrote",
        "  remedy:   correct the file; or move its folder away, then begin a new rollout",
    ]


def test_reports_before_the_rollout_are_read(tmp_path: Path) -> None:
    record = begin_rollout(tmp_path)
    good = {"a": status_json()["report"], "b": {"release": None}, "c": None}
    (record.folder / rollout_folder.BEFORE).write_bytes(rollout_folder.encode(good))

    assert {name: report and report.as_json() for name, report in record.before.items()} == good


@pytest.mark.parametrize(
    "value", [5, [], {"a": 5}, {"a": {"release": NEW}}, {"a": {**status_json()["report"], "errors": "few"}}]
)
def test_invalid_reports_before_the_rollout_are_named(tmp_path: Path, value: object) -> None:
    record = begin_rollout(tmp_path)
    (record.folder / rollout_folder.BEFORE).write_bytes(rollout_folder.encode(value))

    with pytest.raises(ConfigurationError, match=rf"{rollout_folder.BEFORE}: not a rollout's record \(.*found"):
        _ = record.before


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 100_000, b'{"schema_version": 1, "fleet": 1e999999'])
def test_a_file_that_is_not_text_or_too_deep_is_named(tmp_path: Path, content: bytes) -> None:
    record = begin_rollout(tmp_path)
    for name in ("state.json", "plan.json"):
        (record.folder / name).write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"state\.json"):
        record.load()
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        _ = Record(record.folder).plan


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inventory": 5}, "inventory: found 5; Input should be a valid string"),
        ({"devices": ["a"]}, "devices: found ['a']; Input should be a valid dictionary"),
        ({"devices": {"a": {}}}, "devices.a.release: found nothing; Field required"),
        ({"devices": {"b": {"release": NEW}}}, f"devices.a: found nothing; state.json has {NEW}"),
        ({"only": {"a": 1}}, "only: found {'a': 1}; Input should be a valid list"),
    ],
)
def test_an_invalid_plan_is_refused_and_nothing_is_lost(
    root: Path, paused: PreflightResult, capsys: pytest.CaptureFixture[str], changed: Json, words: str
) -> None:
    record = folder(paused)
    path = record / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    before = {each: each.read_bytes() for each in record.rglob("*") if each.is_file()}
    arguments = ["-i", str(declared(root)), "--rollouts", str(root)]

    assert main.main(["--json", "wave", "plan", *arguments, "--repository", str(root.parent / "releases")]) == 12

    refusal = json.loads(capsys.readouterr().out)
    assert (refusal["error"], refusal["where"]) == ("ConfigurationError", str(path)) and words in refusal["found"]
    assert {each: each.read_bytes() for each in record.rglob("*") if each.is_file()} == before


def test_reports_before_the_rollout_are_validated_when_a_wave_is_judged(root: Path, paused: PreflightResult) -> None:
    path = folder(paused) / rollout_folder.BEFORE
    path.write_text(json.dumps(dict.fromkeys("abcd", 5)))

    with pytest.raises(ConfigurationError, match=str(path)):
        controller(paused).judge_wave({name: done() for name in "bcd"}, {})

    assert controller(paused).state.status == "paused"
