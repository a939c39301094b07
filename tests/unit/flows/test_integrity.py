"""A flipped bit that DVC does not see, in what it made and in its cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flows.integrity import check
from flows.stages import reproduce

PIPELINE = """
stages:
  one:
    cmd: mkdir -p many/deep && for out in many/b many/deep/a many/ä single; do cp source $out; done
    deps:
    - source
    outs:
    - many
    - single
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "source").write_text("as it was")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    run(tmp_path)
    return tmp_path


def run(root: Path) -> list[str]:
    lines: list[str] = []
    reproduce(["one"], lines.append, root)
    return lines


def flip(path: Path) -> None:
    """Another byte, the same size and date, as a bad disk does it."""
    date, mode = path.stat().st_mtime_ns, path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(date, date))
    path.chmod(mode)


def objects(root: Path) -> list[Path]:
    return sorted((root / ".dvc/cache/files/md5").glob("*/*"))


def test_nothing_is_said_of_what_is_whole(made: Path) -> None:
    said: list[str] = []
    assert check(said.append, made) == said == []
    assert any("didn't change" in line for line in run(made))


@pytest.mark.parametrize(
    ("broken", "named"), [("single", "single"), ("many/deep/a", "many"), ("many/ä", "many")]
)
def test_an_output_is_named_and_restored(made: Path, broken: str, named: str) -> None:
    flip(made / broken)
    assert any("didn't change" in line for line in run(made))  # DVC does not see it
    said: list[str] = []
    assert check(said.append, made) == [named]
    assert said == [f"{named} is damaged: removed, to be restored or made again"]
    assert "Stage 'one' is cached - skipping run, checking out outputs" in run(made)
    assert (made / broken).read_text() == "as it was"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_cached_object_is_named_and_made_again(made: Path, kind: str) -> None:
    (path,) = [p for p in objects(made) if (p.suffix == ".dir") == (kind == "folder")]
    flip(path)
    flip(made / "single")
    said: list[str] = []
    found = check(said.append, made)
    assert found == [str(path.relative_to(made)), "single"]
    run(made)
    assert (made / "single").read_text() == "as it was"
    assert check(said.append, made) == []
    listed = next(p for p in objects(made) if p.suffix == ".dir")
    assert {entry["relpath"] for entry in json.loads(listed.read_text())} == {"b", "deep/a", "ä"}


def test_what_was_never_made_is_no_damage(tmp_path: Path) -> None:
    assert check(print, tmp_path) == []
