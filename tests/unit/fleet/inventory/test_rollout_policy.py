"""The rules of a rollout: what is accepted, what is refused by name, when a window is open, who is in which wave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.errors import InventoryError
from fleet.inventory import rollout_policy
from fleet.inventory.model import Device
from fleet.rollout.waves import check_wave_names, plan_limited_waves, plan_waves
from tests.support.paths import REPOSITORY

SATURDAY_NIGHT = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)


def device(name: str, kind: str = "pi", wave: int = 0, groups: tuple[str, ...] = ()) -> Device:
    return Device(name, name, kind, wave, "digits@1.0.0", groups, {})


def test_a_missing_policy_has_the_defaults() -> None:
    policy = rollout_policy.parse(None, "group_vars/all.yml")

    assert policy.budget.failed == 0
    assert policy.unfit == "stop"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"bake_s": -1}, "rollout.bake_s"),
        ({"bake": 10}, "rollout.bake"),
        ({"budget": {"failed": "150%"}}, "rollout.budget.failed"),
        ({"budget": {"failed": True}}, "rollout.budget.failed"),
        ({"budget": {"failed": "\uff15%"}}, "rollout.budget.failed"),
        ({"window": {"from": "1\uff12:00", "until": "13:00"}}, "rollout.window.from"),
        ({"window": {"from": "12:00", "until": "13:0\u0660"}}, "rollout.window.until"),
        ({"judge": {"confidence": 1.0}}, "rollout.judge.confidence"),
        ({"judge": {"error_share": float("nan")}}, "rollout.judge.error_share"),
        ({"waves": []}, "rollout.waves"),
        ({"waves": [{"name": "a"}]}, "exactly one of"),
        ({"waves": [{"name": "a", "count": 1, "percent": 5}]}, "exactly one of"),
        (
            {"waves": [{"name": "a", "count": 1}, {"name": "a", "rest": True}]},
            "expected a different name for each wave",
        ),
        ({"waves": [{"name": "a", "rest": True}], "approve": ["b"]}, "approve: expected names of waves"),
        ({"approve": ["a"], "approvers": [""]}, "rollout.approvers.0"),
        ({"bake_poll_s": 0.0}, "rollout.bake_poll_s"),
        ({"window": {"from": "25:00", "until": "02:00"}}, "rollout.window.from"),
        ({"window": {"from": "22:00", "until": "02:00", "timezone": "Mars/Base"}}, "time zone"),
        ({"window": {"from": "22:00", "until": "02:00", "timezone": "Europe"}}, "time zone"),
        ({"window": {"from": "22:00", "until": "22:00"}}, "the same"),
    ],
)
def test_a_fault_is_named(value: dict[str, Any], named: str) -> None:
    with pytest.raises(InventoryError) as refused:
        rollout_policy.parse(value, "group_vars/all.yml")

    assert "group_vars/all.yml" in str(refused.value)
    assert named in str(refused.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InventoryError, match=r"2 error\(s\)"):
        rollout_policy.parse({"bake_s": -1, "control": -1}, "group_vars/all.yml")


def test_a_share_of_the_fleet_is_rounded_down() -> None:
    assert rollout_policy.device_count("10%", 25) == 2
    assert rollout_policy.device_count("10%", 9) == 0
    assert rollout_policy.device_count(3, 9) == 3


@pytest.mark.parametrize(
    ("days", "zone", "hour_utc", "is_open"),
    [
        (["sat"], "UTC", 23, True),
        (["sat"], "UTC", 21, False),
        (["sun"], "UTC", 23, False),  # it is still Saturday
        (["sat"], "UTC", 25, True),  # Sunday at 01:00 belongs to Saturday's window
        (["sun"], "UTC", 25, False),
        (["sat"], "UTC", 26, False),
        (["sun"], "Asia/Tokyo", 13, False),  # Saturday 22:00 in Tokyo
        (["sat"], "Asia/Tokyo", 13, True),
    ],
)
def test_a_window_over_midnight(days: list[str], zone: str, hour_utc: int, is_open: bool) -> None:
    window = rollout_policy.parse(
        {"window": {"days": days, "from": "22:00", "until": "02:00", "timezone": zone}}, "x"
    ).window
    assert window is not None
    now = datetime(2026, 11, 21 + hour_utc // 24, hour_utc % 24, tzinfo=UTC)

    assert window.is_open(now) is is_open


def test_a_window_within_a_day() -> None:
    window = rollout_policy.parse({"window": {"from": "23:00", "until": "23:45"}}, "x").window
    assert window is not None

    assert window.is_open(SATURDAY_NIGHT)
    assert not window.is_open(SATURDAY_NIGHT.replace(minute=45))


def test_without_rules_the_inventory_says_which_wave() -> None:
    planned = plan_waves(
        [device("a", wave=0), device("b", wave=2), device("c", wave=2)], rollout_policy.parse({}, "x"), 3
    )

    assert [(wave.name, wave.devices) for wave in planned] == [("wave-0", ("a",)), ("wave-2", ("b", "c"))]


def test_one_pilot_of_each_type_then_a_quarter_of_the_slow_ones_then_all() -> None:
    devices = [device(f"pi-{i}") for i in range(8)] + [device(f"jetson-{i}", "jetson") for i in range(4)]
    given = rollout_policy.parse(
        {
            "waves": [
                {"name": "pilots", "per_type": 1},
                {"name": "few", "percent": 25},
                {"name": "all", "rest": True},
            ],
            "approve": ["all"],
        },
        "x",
    )

    planned = plan_waves(devices, given, len(devices))

    assert [wave.devices for wave in planned[:2]] == [("pi-0", "jetson-0"), ("pi-1", "pi-2", "pi-3")]
    assert sorted(name for wave in planned for name in wave.devices) == sorted(each.name for each in devices)
    assert [wave.approve for wave in planned] == [False, False, True]


def test_a_share_is_of_the_fleet_and_not_of_what_is_left_to_do() -> None:
    given = rollout_policy.parse({"waves": [{"name": "few", "percent": 10}, {"name": "all", "rest": True}]}, "x")

    planned = plan_waves([device(f"d{i}") for i in range(20)], given, 40)

    assert len(planned[0].devices) == 4


def test_groups_and_types_choose_too_and_empty_waves_are_left_out() -> None:
    devices = [device("a", groups=("canaries",)), device("b", "jetson"), device("c")]
    waves = [
        {"name": "canary", "group": "canaries"},
        {"name": "none", "group": "nobody"},
        {"name": "jetsons", "device_type": "jetson"},
        {"name": "one", "count": 1},
    ]

    planned = plan_waves(devices, rollout_policy.parse({"waves": waves}, "x"), 3)

    assert [(wave.name, wave.devices) for wave in planned] == [
        ("canary", ("a",)), ("jetsons", ("b",)), ("one", ("c",)),
    ]  # fmt: skip


def test_a_device_in_no_wave_is_refused() -> None:
    with pytest.raises(InventoryError, match=r"2 device\(s\) are in no wave: b, c"):
        plan_waves(
            [device("a"), device("b"), device("c")],
            rollout_policy.parse({"waves": [{"name": "x", "count": 1}]}, "x"),
            3,
        )


def test_the_rules_of_the_shipped_inventories_are_accepted() -> None:
    import yaml

    found = 0
    for file in REPOSITORY.glob("inventory/*/group_vars/**/*.yml"):
        content = yaml.safe_load(file.read_text()) or {}
        if "rollout" in content:
            rollout_policy.parse(content["rollout"], str(file))
            found += 1
    assert found


@pytest.mark.parametrize(
    ("given", "where", "found"),
    [
        ({"waves": [{"name": "c", "group": "canariez"}, {"name": "r", "rest": True}]}, "waves: c: group", "canariez"),
        ({"waves": [{"name": "c", "device_type": "pj"}, {"name": "r", "rest": True}]}, "c: device_type", "pj"),
        ({"approve": ["rest"], "four_eyes": True}, "approve", "rest, which is not a wave"),
        ({"approve": ["wave-0", "wave-2"]}, "approve", "wave-2, which is not a wave"),
    ],
)
def test_what_the_rules_name_has_to_be_there(given: dict[str, Any], where: str, found: str) -> None:
    devices = [device("a", groups=("canaries",)), device("b", wave=1)]

    with pytest.raises(InventoryError, match=found) as refused:
        check_wave_names(devices, rollout_policy.parse(given, "x"), "rollout")
    assert where in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"approve": ["wave-0", "wave-1"]},
        {"waves": [{"name": "c", "group": "canaries"}, {"name": "r", "rest": True}], "approve": ["r"]},
        {"waves": [{"name": "c", "device_type": "pi"}]},
    ],
)
def test_what_is_there_may_be_named(given: dict[str, Any]) -> None:
    check_wave_names(
        [device("a", groups=("canaries",)), device("b", wave=1)], rollout_policy.parse(given, "x"), "rollout"
    )


def test_a_release_that_no_canary_has_run_asks_for_approval() -> None:
    fleet = [device("a"), device("b", wave=1), device("c", wave=1)]
    everybody = {each.name for each in fleet}

    def asked(selected: set[str], current: Sequence[str] = (), proven: Sequence[str] = ()) -> dict[str, str]:
        found = plan_limited_waves(
            fleet, rollout_policy.parse(None, ""), 3, selected=selected, current=current, proven=proven
        )
        found = [wave for wave in found if wave.devices]
        assert all(wave.approve is bool(wave.approval_reason) for wave in found)
        return {wave.name: wave.approval_reason for wave in found}

    assert asked(everybody) == {"wave-0": "", "wave-1": ""}
    assert asked({"b"}) == {"wave-1": "no canary has run digits@1.0.0"}
    assert asked({"b"}, proven=["digits@1.0.0"]) == {"wave-1": ""}
    assert asked(everybody, current=["a"]) == {"wave-1": "no canary has run digits@1.0.0"}


def test_who_cannot_take_part_has_tried_nothing() -> None:
    fleet = [device("a"), device("b", wave=1), device("c", wave=2)]

    def asked(**known: Any) -> dict[str, tuple[bool, bool]]:
        everybody = [each.name for each in fleet]
        found = plan_limited_waves(fleet, rollout_policy.parse(None, ""), 3, selected=everybody, **known)
        return {wave.name: (wave.approve, wave.canary) for wave in found if wave.devices}

    assert asked() == {"wave-0": (False, True), "wave-1": (False, False), "wave-2": (False, False)}
    assert asked(excluded=["b"], current=["a"]) == {"wave-2": (True, True)}, "no wave before it will have run it"
    assert asked(excluded=["b"], current=["a"], proven=["digits@1.0.0"]) == {"wave-2": (False, False)}
    (first, *_) = plan_limited_waves(fleet, rollout_policy.parse(None, ""), 3, selected=["a", "b", "c"], excluded=["a"])
    assert first.absent == ("a",)
    (first, *_) = plan_limited_waves(
        fleet, rollout_policy.parse(None, ""), 3, selected=["a", "b", "c"], excluded=["a"], proven=["digits@1.0.0"]
    )
    assert first.absent == ()


def test_a_group_of_later_waves_has_no_canary_for_a_release_of_its_own() -> None:
    found = plan_limited_waves([device("b", wave=1)], rollout_policy.parse(None, ""), 3, selected=["b"])

    assert [(wave.name, wave.approve) for wave in found] == [("wave-1", True)]
