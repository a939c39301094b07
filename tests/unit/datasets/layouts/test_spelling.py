"""Names are compared as people read them."""

from __future__ import annotations

import pytest

from dxai.datasets.layouts.spelling import class_name, fold, listed, spelling_notes


@pytest.mark.parametrize("name", ["cat ", "\tcat", "cat\u3000"])
def test_spaces_around_a_name_are_not_part_of_it(name: str) -> None:
    assert class_name(name) == "cat"


@pytest.mark.parametrize(
    "name",
    ["Small_Vehicle", "small vehicle", "SMALL--VEHICLE", "small\u200b-vehicle", "_small_vehicle"],
)
def test_spellings_of_one_category(name: str) -> None:
    assert fold(name) == "small-vehicle"


@pytest.mark.parametrize(("one", "other"), [("+", "-"), ("a", "ä"), ("1-1", "11"), ("c", "c++")])
def test_names_that_differ(one: str, other: str) -> None:
    assert fold(one) != fold(other)
    assert not spelling_notes([one, other])


def test_lists_of_names() -> None:
    assert listed([]) == "nothing"
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh") == "a, b, c, d, e and 3 more"
