"""Links to what lies outside of a project."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.utils.links import inside, linked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "project" / "data" / "linked").symlink_to(tmp_path / "photos")
    (tmp_path / "alias").symlink_to(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data/own", "data/own"),
        ("data/../data/own", "data/own"),
        ("data/linked", "data/linked"),  # a link in the project counts as inside
        ("../alias/data/own", "data/own"),
        (".", "."),
        ("../photos", None),
        ("..", None),
        ("../project-2", None),
        ("..photos", "..photos"),
    ],
)
def test_what_lies_inside(project: Path, path: str, found: str | None) -> None:
    assert inside(project / path, project) == found


def test_links_are_made_and_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    link = Path("data/photos")
    with linked({link: Path("../photos")}):
        assert link.readlink() == project.parent / "photos"
    with linked({link: project.parent / "photos"}):  # the same again
        pass
    assert link.is_dir()


def test_an_error_takes_back_what_it_made_and_nothing_else(project: Path) -> None:
    new, old = project / "data" / "new", project / "data" / "linked"
    with pytest.raises(KeyboardInterrupt), linked({new: project.parent, old: old.resolve()}):
        raise KeyboardInterrupt
    assert not new.is_symlink() and old.is_symlink()


def test_nothing_is_overwritten(project: Path) -> None:
    new, own = project / "data" / "new", project / "data" / "own"
    own.write_text("kept")
    for taken, target in ((project / "data" / "linked", project), (own, project)):
        before = taken.lstat()
        with (
            pytest.raises(FileExistsError, match=f"{taken} .*another name"),
            linked({new: project, taken: target}),
        ):
            raise AssertionError
        assert taken.lstat() == before and not new.is_symlink()
