"""The page of the documentation that lists every setting."""

from __future__ import annotations

from docs import settings_page
from dxai.config.schema import DatasetParams, Params
from dxai.config.settings import Settings
from dxai.datasets.registry import LAYOUTS
from dxai.explain.registry import EXPLAINERS


def names(tables: dict[str, type[Settings]]) -> set[str]:
    return {name for key in tables for name in key.split(", ")}


def test_the_page_is_what_its_command_writes() -> None:
    written = settings_page.PAGE.read_text()
    assert written == settings_page.settings_page(), f"run {settings_page.COMMAND}"


def test_no_block_layout_or_method_is_left_out() -> None:
    assert names(settings_page.LAYOUTS) == set(LAYOUTS)
    assert names(settings_page.METHODS) == set(EXPLAINERS) - {"random"}  # it has no settings
    valid = f"One of {', '.join(sorted(LAYOUTS))}."
    assert valid in str(DatasetParams.model_fields["layout"].description)
    blocks = {n for n, f in Params.model_fields.items() if isinstance(f.default, Settings)}
    assert blocks <= set(settings_page.BLOCKS)


def test_every_setting_is_described() -> None:
    for kind in [Params, *settings_page.BLOCKS.values(), *settings_page.LAYOUTS.values()]:
        assert all(field.description for field in kind.model_fields.values()), kind
    for kind in settings_page.METHODS.values():
        assert all(field.description for field in kind.model_fields.values()), kind
