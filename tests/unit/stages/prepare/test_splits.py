"""Groups are never divided; shares and classes come as close as whole groups allow; poor splits are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import ContractError
from stages.prepare.splits import assign_groups, refuse_poor_splits

SHARES = {"train": 0.65, "validation": 0.15, "test": 0.2}


def _sizes(assigned: dict[str, str], groups: list[str], counts: np.ndarray) -> dict[str, np.ndarray]:
    return {name: counts[[assigned[g] == name for g in groups]].sum(axis=0) for name in SHARES}


def test_many_small_groups_meet_the_shares_in_every_class() -> None:
    # given a thousand groups of one sample, the second class rare
    counts = np.eye(2, dtype=int)[(np.arange(1000) % 10 == 0).astype(int)]
    groups = [f"g{i}" for i in range(1000)]
    # when
    sizes = _sizes(assign_groups(groups, counts, SHARES, 1), groups, counts)
    # then
    for name, share in SHARES.items():
        assert sizes[name] == pytest.approx(share * counts.sum(axis=0), abs=1)


def test_a_group_that_is_a_fifth_of_all_goes_to_training() -> None:
    # given 34 experiments of 1100 rows and one of 9400
    counts = np.array([[715, 385]] * 34 + [[9400, 0]])
    groups = [str(i) for i in range(35)]
    # when
    assigned = assign_groups(groups, counts, SHARES, 42)
    # then
    assert assigned["34"] == "train"
    sizes = _sizes(assigned, groups, counts)
    assert sizes["test"].sum() / counts.sum() == pytest.approx(0.2, abs=0.05)
    assert sizes["validation"].sum() / counts.sum() == pytest.approx(0.15, abs=0.05)


@settings(max_examples=50)
@given(
    rows=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=3, max_size=40), seed=st.integers(0, 9)
)
def test_the_order_of_the_groups_does_not_matter(rows: list[tuple[int, int]], seed: int) -> None:
    # given
    counts = np.array(rows)
    groups = [f"g{i}" for i in range(len(rows))]
    # when
    straight = assign_groups(groups, counts, SHARES, seed)
    backward = assign_groups(groups[::-1], counts[::-1], SHARES, seed)
    # then
    assert straight == backward
    assert set(straight) == set(groups)


def test_another_seed_gives_other_groups() -> None:
    counts = np.ones((50, 2), dtype=int)
    groups = [str(i) for i in range(50)]
    assert assign_groups(groups, counts, SHARES, 1) != assign_groups(groups, counts, SHARES, 2)
    assert assign_groups(groups, counts, SHARES, 1) == assign_groups(groups, counts, SHARES, 1)


def test_an_empty_split_is_refused() -> None:
    samples = {"train": {"a": 3, "b": 3}, "validation": {"a": 1, "b": 0}, "test": {"a": 0, "b": 0}}
    with pytest.raises(ContractError, match="split test: it would be empty; there are 3 group") as refused:
        refuse_poor_splits(samples, {"train": 2, "validation": 1, "test": 0}, ["a", "b"])
    assert "collect more groups" in refused.value.remedy


def test_a_class_that_training_lacks_is_refused() -> None:
    samples = {"train": {"a": 3, "b": 0}, "validation": {"a": 1, "b": 2}, "test": {"a": 1, "b": 0}}
    with pytest.raises(ContractError, match=r"split train: no sample of class 'b' \(2 in other splits\)"):
        refuse_poor_splits(samples, dict.fromkeys(samples, 1), ["a", "b"])
