"""Inputs of a run, their restoration, and the report of differences."""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path

import pytest

from dxai.results.comparison import LoggedRun, compare
from dxai.results.metric_names import MetricValue as Value
from dxai.tracking import reproduce, workspace
from dxai.utils import dvc_files

PARAMS = """datasets:
  drawn: {source: sample}
  far: {source: "s3://bucket/x"}
  fruit: {source: data/fruit}
  listed: {source: data/own/list.csv}
classifiers:
  mine: {arch: "own.nets:Net", weights: weights/mine.pt, files: [twin.pt]}
  simple: {arch: simple, weights: null}
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Make a project, and a folder within it in which a run is reproduced."""
    root, folder = tmp_path / "project", tmp_path / "project/.work/again"
    for name in (
        "data/fruit/a.png",
        "data/own/list.csv",
        "weights/mine.pt",
        "own/nets.py",
        "twin.pt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (folder / "data").mkdir(parents=True)
    (folder / "sample").touch()
    (folder / "params.yaml").write_text(PARAMS)
    return root, folder


@pytest.mark.parametrize("before", ["", "run:\n"], ids=["flat", "of an earlier version"])
def test_what_git_does_not_have_is_linked_once(folders: tuple[Path, Path], before: str) -> None:
    root, folder = folders
    if before:
        (folder / "params.yaml").write_text(before + textwrap.indent(PARAMS, "  "))
    paths = [path for path, _ in workspace.link_given(root, folder)]
    assert paths == ["data/fruit", "data/own", "weights/mine.pt", "twin.pt", "own"]
    assert (folder / "data/own/list.csv").read_text() == "data/own/list.csv"
    assert (folder / "weights/mine.pt").resolve() == root / "weights/mine.pt"
    assert workspace.link_given(root, folder) == []


def test_all_that_is_missing_is_named_at_once(folders: tuple[Path, Path]) -> None:
    root, folder = folders
    (root / "weights/mine.pt").unlink()
    (root / "data/fruit/a.png").unlink()
    (root / "data/fruit").rmdir()
    said = r"data/fruit \(the source of dataset fruit\) is missing; weights/mine\.pt \(the weights"
    with pytest.raises(ValueError, match=said):
        workspace.link_given(root, folder)


def test_a_source_outside_of_the_project_is_not_linked(folders: tuple[Path, Path]) -> None:
    root, folder = folders
    (root.parent / "raw").mkdir()
    text = PARAMS.replace("data/fruit", "../raw")
    (folder / "params.yaml").write_text(text)
    said = rf"\.\./raw .* write {root.parent}/raw, or give a repetition --into a folder beside"
    with pytest.raises(ValueError, match=said):
        workspace.link_given(root, folder)
    assert not (folder.parent / "raw").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(ValueError, match="is not a clone for this run"):
        reproduce._prepare(tmp_path, tmp_path, LoggedRun("a" * 32, "run"), print)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_two_do_not_compute_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    first, raises = reproduce._alone(tmp_path), pytest.raises(ValueError, match="another process")
    with first, raises, reproduce._alone(tmp_path):
        pass
    with reproduce._alone(tmp_path):
        pass


def stage(path: str, md5: str, source: str = "s") -> dict[str, object]:
    return {
        "deps": [{"path": "data/fruit", "hash": "md5", "md5": source}],
        "outs": [{"path": path, "hash": "md5", "md5": md5}],
    }


def test_outputs_are_compared_file_by_file(tmp_path: Path) -> None:
    before = {"a": stage("out/a", "11.dir"), "b": stage("out/b", "22"), "c": stage("out/c", "33")}
    after = {"a": stage("out/a", "44.dir", "t"), "b": stage("out/b", "22", "t")}
    caches = (tmp_path / "before", tmp_path / "after")
    for cache, name, second in ((caches[0], "11.dir", "x"), (caches[1], "44.dir", "y")):
        path = cache / "files/md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True)
        files = [{"relpath": "same", "md5": "0"}, {"relpath": "other", "md5": second}]
        path.write_text(json.dumps(files))
    found = [reproduce._with_files(o, caches) for o in reproduce._outputs(before, after, "outs")]
    assert [(o.stage, o.before == o.after, o.files) for o in found] == [
        ("a", False, ("other",)),
        ("b", True, ()),
        ("c", False, ()),
    ]
    (changed,) = reproduce._changed_inputs(before, after)
    assert changed.path == "data/fruit"
    inputs = [changed]
    result = reproduce.Reproduction(
        tmp_path, compare(LoggedRun("", ""), LoggedRun("", "")), found, inputs
    )
    text = reproduce.as_text(result)
    assert "data/fruit, an input of a, has changed" in text
    assert "1 of 3 have the same bytes" in text
    assert "a: out/a differs in other" in text
    assert "c: out/c was written only in the run" in text


def test_a_cell_differs_by_more_than_the_tolerance_or_is_missing(tmp_path: Path) -> None:
    before = LoggedRun(
        "",
        "",
        cells=[Value("auc/a", 0.5), Value("auc/b", 0.5), Value("auc/c", 0.5)],
    )
    after = LoggedRun("", "", cells=[Value("auc/a", 0.5), Value("auc/b", 0.5001)])
    found = reproduce.Reproduction(tmp_path, compare(before, after), [], [])
    assert {cell.name for cell in found.differing()} == {"auc/b", "auc/c"}
    assert {cell.name for cell in found.differing(0.001)} == {"auc/c"}
    text = reproduce.as_text(found)
    assert "Cells: 1 of 3 are the same (tolerance 0)" in text
    assert text.endswith("not reproduced")


def test_only_intact_outputs_are_restored_and_the_cache_stays(tmp_path: Path) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "again"

    def put(content: bytes, suffix: str = "", damaged: bool = False) -> str:
        digest = hashlib.md5(content).hexdigest() + suffix
        path = dvc_files.object_path(cache, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + b"!" * damaged)
        return digest

    def put_folder(*names: str) -> str:
        return put(json.dumps([{"md5": n, "relpath": n} for n in names]).encode(), ".dir")

    good, bad = put(b"good"), put(b"bad", damaged=True)
    whole, broken = put_folder(good), put_folder(good, bad)
    digests = {"good": good, "bad": bad, "whole": whole, "broken": broken, "gone": "0" * 32}
    stages = {name: stage(name, digest) for name, digest in digests.items()}
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert reproduce._restore(stages, cache, folder) == ["bad", "broken", "gone"]
    own = {path.name for path in folder.rglob("*") if path.is_file()}
    assert own == {good[2:], whole[2:]}
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before
