"""What a workspace has of the project: its commit, changes to it, and links to data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dxai.paths import Paths
from dxai.tracking import provenance, workspace
from tests.repository import git

SETTINGS = """datasets:
  fruit: {source: data/fruit}
classifiers:
  mine: {arch: "own:Net", weights: weights/mine.pt}
"""


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a repository with changes, new files, and data that git ignores."""
    root = tmp_path / "a project"
    write(root, "dxai/code.py", "dxai/gone.py", "data/README.md", "sample")
    (root / "params.yaml").write_text("datasets: {}\nclassifiers: {}\n")
    (root / ".gitignore").write_text("/.work/\n/data/prepared/\n/data/hidden/*/\n/weights/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "start")
    (root / "dxai/code.py").write_text("changed\n")
    (root / "dxai/gone.py").unlink()
    (root / "params.yaml").write_text(SETTINGS)
    write(
        root,
        "own.py",
        "data/fruit/1.png",
        "data/hidden/[a] b/1.png",
        "notes.txt",
        "other/large.bin",
    )
    write(root, "data/prepared/fruit/shard", "weights/mine.pt")
    return root


def test_it_is_the_project_as_it_is(root: Path) -> None:
    before, folder = git(root, "status", "--porcelain"), Paths(root).runs / "amber"
    workspace.copy(root, folder)
    assert git(root, "status", "--porcelain") == before
    assert git(folder, "rev-parse", "HEAD") == git(root, "rev-parse", "HEAD")
    for name in ("dxai/code.py", "params.yaml", "own.py", "notes.txt"):
        assert (folder / name).read_text() == (root / name).read_text()
        assert not (folder / name).is_symlink()  # an edit meanwhile does not reach the run
    assert not (folder / "dxai/gone.py").exists()
    for name in ("data/fruit", "data/hidden/[a] b", "weights/mine.pt", "other"):
        assert (folder / name).resolve() == (root / name)
    assert not (folder / "data/prepared").exists()
    assert Paths(folder).work.resolve() == Paths(root).work
    assert Paths(folder).project == Paths(root).project == root


def test_its_record_is_that_of_the_project(root: Path) -> None:
    folder = Paths(root).runs / "amber"
    workspace.copy(root, folder)
    patch, left_out = provenance.uncommitted(root)
    ours, also_left_out = provenance.uncommitted(folder)
    assert ours == patch
    assert left_out == ["data/fruit", "notes.txt", "other/large.bin"]
    assert also_left_out == ["data/fruit", "notes.txt", "other"]  # not what git ignores


@pytest.mark.parametrize("why", ["no commit", "another user"])
def test_where_git_names_no_commit_all_files_are_copied(
    root: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "no commit":
        git(root, "update-ref", "-d", "HEAD")
    elif os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    else:
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        monkeypatch.delenv("SUDO_UID", raising=False)
        for path in (root, root / ".git"):
            os.chown(path, 65534, 65534)
    assert provenance.problem(root)
    folder = Paths(root).runs / "amber"
    workspace.copy(root, folder)
    for name in ("dxai/code.py", "params.yaml", "own.py"):
        assert (folder / name).read_text() == (root / name).read_text()
    assert not (folder / ".git").exists()
    assert provenance.version(folder)[0]["git_problem"] == provenance.problem(root)
    assert (folder / "data/hidden/[a] b/1.png").exists()


@pytest.mark.parametrize("source", ["../raw", "../raw/images.csv"])
def test_a_source_beside_the_project_is_reached_from_a_workspace(root: Path, source: str) -> None:
    write(root.parent, "raw/a.png", "raw/images.csv")
    text = "# mine\n" + SETTINGS.replace("data/fruit", source)
    (root / "params.yaml").write_text(text)
    folder, there = Paths(root).runs / "amber", root.parent / source.removeprefix("../")
    assert workspace.copy(root, folder) == [f"datasets.fruit.source: {source} -> {there}"]
    assert workspace.settings(folder)["datasets"]["fruit"]["source"] == str(there)
    assert (folder / "params.yaml").read_text().startswith("# mine\n")
    assert (root / "params.yaml").read_text() == text


def test_weights_beside_the_project_are_refused_with_what_to_write(root: Path) -> None:
    write(root.parent, "mine.pt")
    (root / "params.yaml").write_text(SETTINGS.replace("weights/mine.pt", "../mine.pt"))
    with pytest.raises(ValueError, match=rf"\.\./mine\.pt .*: write {root.parent}/mine\.pt"):
        workspace.copy(root, Paths(root).runs / "amber")


def test_missing_data_is_named_and_nothing_is_left(root: Path) -> None:
    (root / "weights/mine.pt").unlink()
    with pytest.raises(ValueError, match=r"weights/mine\.pt \(the weights of classifier mine\)"):
        workspace.copy(root, Paths(root).runs / "amber")
    assert not list(Paths(root).runs.iterdir())
