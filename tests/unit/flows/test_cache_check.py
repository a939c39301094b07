"""Flipped bits in DVC's outputs and cache, which DVC itself does not notice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dxai.utils import dvc_files
from flows.cache_check import check
from flows.dvc_runner import reproduce
from flows.lanes import StageFailed
from tests.conftest import Mount

CACHE = ".dvc/cache"
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the pipeline once."""
    root = tmp_path_factory.mktemp("finished")
    set_up(root, PIPELINE)
    (root / "source").write_text("as it was")
    run(root)
    return root


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Path:
    """Copy what was run, and let DVC note the hash of each copied file."""
    root = shutil.copytree(finished, tmp_path / "project")
    assert any("didn't change" in line for line in run(root))
    return root


def set_up(root: Path, pipeline: str) -> None:
    (root / "dvc.yaml").write_text(pipeline)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")


def run(root: Path, *targets: str) -> list[str]:
    """Bring the targets up to date, one after the other; returns what was logged."""
    targets, lines = targets or ("one",), list[str]()
    reproduce({name: list(targets[:k]) for k, name in enumerate(targets)}, lines.append, root)
    return lines


def flip(path: Path) -> None:
    """Change a byte but neither size nor date, as a bad disk does."""
    date, mode = path.stat().st_mtime_ns, path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(date, date))
    path.chmod(mode)


def objects(root: Path) -> list[Path]:
    return sorted((root / CACHE / "files/md5").glob("*/*"))


def test_nothing_is_said_of_what_is_whole(made: Path) -> None:
    said: list[str] = []
    assert check(said.append, made / CACHE, made) == said == []
    assert any("didn't change" in line for line in run(made))


@pytest.mark.parametrize(
    ("broken", "named"), [("single", "single"), ("many/deep/a", "many"), ("many/ä", "many")]
)
def test_an_output_is_named(made: Path, broken: str, named: str) -> None:
    flip(made / broken)
    assert any("didn't change" in line for line in run(made))  # DVC does not see it
    said: list[str] = []
    assert check(said.append, made / CACHE, made) == [named]
    assert said == [f"{named} is damaged: removed, to be restored or made again"]
    assert not (made / named).exists()


def test_outputs_are_restored(made: Path) -> None:
    broken = ("single", "many/deep/a", "many/ä")
    for name in broken:
        flip(made / name)
    assert sorted(check(print, made / CACHE, made)) == ["many", "single"]
    assert "Stage 'one' is cached - skipping run, checking out outputs" in run(made)
    assert [(made / name).read_text() for name in broken] == ["as it was"] * 3


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_cached_object_is_named_and_made_again(made: Path, kind: str) -> None:
    (path,) = [p for p in objects(made) if (p.suffix == ".dir") == (kind == "folder")]
    flip(path)
    flip(made / "single")
    said: list[str] = []
    found = check(said.append, made / CACHE, made)
    assert found == [str(path), "single"]
    run(made)
    assert (made / "single").read_text() == "as it was"
    assert check(said.append, made / CACHE, made) == []
    listed = next(p for p in objects(made) if p.suffix == ".dir")
    assert {entry["relpath"] for entry in json.loads(listed.read_text())} == {"b", "deep/a", "ä"}


FILLED = """
stages:
  small:
    cmd: cp source small
    deps: [source]
    outs: [small]
  large:
    cmd: head -c 700000 source > large
    deps: [source]
    outs: [large]
"""


def test_a_disk_that_fills_up_is_named_and_nothing_half_made_stays(
    tmp_path: Path, mount: Mount
) -> None:
    if (disk := mount("3m")) is None:
        return  # tests cannot mount here; test_workspace.py needs no small disk for what it tests
    set_up(disk, FILLED)
    (disk / "source").write_bytes(os.urandom(800_000))
    with pytest.raises(StageFailed, match=r"large failed: .*No space left on device"):
        run(disk, "small", "large")
    done = dvc_files.stages(disk / "dvc.lock")
    assert list(done) == ["small"]
    subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
    said: list[str] = []
    assert check(said.append, disk / CACHE, disk) == []
    assert all(line.endswith(".tmp was never finished: removed") for line in said)
    lines = run(disk, "small", "large")
    assert "Stage 'small' didn't change, skipping" in lines
    assert "Running stage 'large':" in lines
    assert (disk / "large").read_bytes() == (disk / "source").read_bytes()[:700_000]


def test_a_read_only_cache_is_named(made: Path, mount: Mount) -> None:
    (made / "source").write_text("anew")
    if mount("1m", made / CACHE, "ro") is None:
        return  # tests cannot mount here
    with pytest.raises(StageFailed, match=rf"Read-only file system: '{made / CACHE}"):
        run(made)


def test_what_was_never_made_is_no_damage(tmp_path: Path) -> None:
    assert check(print, tmp_path / CACHE, tmp_path) == []
