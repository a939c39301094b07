"""params.yaml as a file: its layout, its comments, and its form after DVC's own writer."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from dxai.config.params_file import LONGEST, format_params, load_params, read_yaml
from dxai.config.profiles import load_profile, profile_names
from dxai.config.settings import ParamsError

PROJECT = Path(__file__).parents[3] / "params.yaml"


def changed_lines(before: str, after: str) -> list[str]:
    """Return the lines that only one of two texts has."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_the_committed_file_is_what_dxai_use_writes() -> None:
    text = PROJECT.read_text()
    assert text == format_params(load_profile("quick"))
    assert len(text.splitlines()) <= 160
    assert not set("&*<") & {line.split()[-1][0] for line in text.splitlines() if line.split()}


@pytest.mark.parametrize("profile", profile_names())
def test_every_reader_of_yaml_finds_the_same_values(profile: str) -> None:
    assert yaml.safe_load(format_params(load_profile(profile))) == load_profile(profile)


@pytest.mark.parametrize("profile", profile_names())
def test_dvc_changes_one_line_and_no_other(tmp_path: Path, profile: str) -> None:
    """This calls the code behind `dvc exp run -S decompose.steps=10`."""
    file = tmp_path / "params.yaml"
    file.write_text(format_params(load_profile(profile)))
    before = file.read_text()
    apply_overrides(file, ["decompose.steps=10"])
    removed, added = changed_lines(before, file.read_text())
    assert removed.startswith("-   steps: ") and added.startswith("+   steps: 10 ")
    assert removed.partition("#")[2] == added.partition("#")[2]
    assert load_params(file).decompose == load_params(PROJECT).decompose.replace(
        **load_profile(profile)["decompose"] | {"steps": 10}
    )


def test_dvc_keeps_everything_but_a_list_that_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(format_params(load_profile("full")))
    before = file.read_text()
    apply_overrides(file, ["repeat.seeds=[1,2,3]"])
    assert changed_lines(before, file.read_text()) == ["+   - 3"]


def test_every_setting_of_a_stage_has_its_comment() -> None:
    lines = PROJECT.read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("prepare:")))
    assert all(" # " in line for line in lines[start:] if line)
    assert max(map(len, lines)) <= LONGEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [", "not valid YAML"),
        ("- 1", "not a mapping"),
        ("profiles: {}\nrun: {}", r"layout of an earlier version .*`dxai use` rewrites it"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        load_params(tmp_path / "params.yaml")


def test_what_is_left_out_of_an_entry_has_its_default(tmp_path: Path) -> None:
    values = read_yaml(PROJECT)
    values["datasets"] = {"mine": {"layout": "folder", "source": "data/mine"}}
    file = tmp_path / "params.yaml"
    file.write_text(format_params(values))
    assert load_params(file).dataset("mine").channels == 3
