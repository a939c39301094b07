"""Which images go to which split."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxai.config.settings import ParamsError, parse
from dxai.datasets.base import Unit
from dxai.datasets.splits import HoldOutOptions, SplitOptions, by_split, choose_groups, hold_out


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-0.1, 0.3)])
def test_shares_that_leave_a_split_empty_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ParamsError, match=r"must be greater than 0|test must be below 1"):
        parse(SplitOptions, {"validation": validation, "test": test}, "options")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ParamsError, match=f"validation is {share}; it must be (greater|less) than"):
        parse(HoldOutOptions, {"validation": share}, "options")


def test_test_goes_first() -> None:
    """Thus the test image of two equal files is not the one that is dropped."""
    units = [
        Unit(f"{split}{label}{i}", split, (), label)
        for i in range(2)
        for label in "ba"
        for split in ("train", "test", "validation")
    ]
    assert [unit.key for unit in by_split(units)] == [
        *("testa0", "testa1", "testb0", "testb1"),
        *("validationa0", "validationa1", "validationb0", "validationb1"),
        *("traina0", "traina1", "trainb0", "trainb1"),
    ]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    share=st.floats(0.02, 0.7),
    seed=st.integers(0, 9),
)
def test_independent_images_are_held_out_by_their_share(
    counts: list[int], share: float, seed: int
) -> None:
    """Of n images the nearest whole number to share x n, at least one."""
    names = [f"class {k}" for k in range(len(counts))]
    sizes = {
        f"{name}/{i}": Counter({name: 1})
        for name, n in zip(names, counts, strict=True)
        for i in range(n)
    }
    held = choose_groups(sizes, names, share, seed)
    for name, n in zip(names, counts, strict=True):
        found = sum(key.startswith(f"{name}/") for key in held)
        assert found == max(1, round(share * n)) or abs(found - share * n) == pytest.approx(0.5)


def test_only_training_images_are_held_out() -> None:
    units = [Unit(f"{s}/{k}/{i}", s, (), k, f"{s}/{k}/{i}") for s in ("train", "test")
             for k in "ab" for i in range(10)]  # fmt: skip
    held = hold_out(units, "ab", 0.3, seed=0)
    assert [unit.key for unit in held] == [unit.key for unit in units]
    assert Counter(unit.split for unit in held) == {"train": 14, "validation": 6, "test": 20}
    assert all(unit.split == "test" for unit in held if unit.key.startswith("test"))


def test_group_of_test_in_train_does_not_move_test() -> None:
    units = [Unit(f"train/{k}/{i}", "train", (), k, f"{k}{i}") for k in "ab" for i in range(4)]
    units += [Unit(f"test/{k}/{i}", "test", (), k, f"{k}{i}") for k in "ab" for i in range(4)]
    held = hold_out(units, "ab", 0.5, seed=0)
    assert Counter(unit.split for unit in held) == {"train": 4, "validation": 4, "test": 8}
