"""A repository with changes of every kind, restored from a commit and a patch."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from dxai.tracking import provenance
from tests.repository import git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a commit, then changes."""
    root = tmp_path / "a project"
    for name in ("dxai/old.py", "dxai/changed.py", "dxai/gone.py", "data/README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    (root / "dxai/bytes.bin").write_bytes(bytes(range(256)))
    (root / ".gitignore").write_text("*.key\n/dvc.lock\n")
    (root / "params.yaml").write_text("run: 1\n")
    git(root, "init", "-q")
    git(root, "config", "diff.noprefix", "true")  # a setting that would spoil a plain `git diff`
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    (root / "dxai/changed.py").write_bytes(b"caf\xe9 = 1\r\n")
    (root / "dxai/bytes.bin").write_bytes(bytes(range(255, -1, -1)))
    (root / "dxai/gone.py").unlink()
    (root / "dxai/new ü.py").write_text("new\n")
    (root / "dxai/staged.py").write_text("staged\n")
    git(root, "add", "dxai/staged.py")
    (root / "own.py").write_text("own\n")
    (root / "params.yaml").write_text("run: 2\n")
    (root / "dxai/secret.key").write_text("secret\n")
    (root / "notes.txt").write_text("private\n")
    (root / "dxai/large.bin").write_bytes(bytes(provenance.LARGEST + 1))
    (root / "data/raw").mkdir()
    (root / "data/raw/1.png").write_text("pixels\n")
    return root


def test_commit_and_patch_give_the_same_files(root: Path, tmp_path: Path) -> None:
    before = git(root, "status", "--porcelain"), git(root, "count-objects", "-v")
    patch, left_out = provenance.uncommitted(root)
    assert (git(root, "status", "--porcelain"), git(root, "count-objects", "-v")) == before
    assert left_out == ["data/raw", "dxai/large.bin", "notes.txt"]
    for word in (b"secret", b"private", b"pixels", b"params.yaml"):
        assert word not in patch
    file, again = tmp_path / "code.patch", tmp_path / "again"
    file.write_bytes(patch)
    again.mkdir()
    provenance.checkout(root, git(root, "rev-parse", "HEAD").strip(), file, again)
    for name in ("changed.py", "bytes.bin", "new ü.py", "staged.py", "old.py"):
        assert (again / "dxai" / name).read_bytes() == (root / "dxai" / name).read_bytes()
    assert (again / "own.py").read_text() == "own\n"
    assert (again / "params.yaml").read_text() == "run: 1\n"
    assert not (again / "dxai/gone.py").exists()


def test_an_unchanged_repository_and_none_have_no_patch(root: Path, tmp_path: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "second")
    assert provenance.uncommitted(root) == (b"", [])
    assert provenance.uncommitted(tmp_path) == (b"", [])


def test_a_commit_that_is_unknown_here_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match=r"commit 1{40} is not in this repository; `git fetch`"):
        provenance.checkout(root, "1" * 40, None, tmp_path / "x")
    with pytest.raises(ValueError, match="no git repository"):
        provenance.checkout(tmp_path, "1" * 40, None, tmp_path / "x")
    patch = tmp_path / "code.patch"
    patch.write_text("diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n")
    with pytest.raises(ValueError, match=r"code\.patch does not apply to commit \w+: .*x\.py"):
        provenance.checkout(root, git(root, "rev-parse", "HEAD").strip(), patch, tmp_path / "x")


def test_versions_read_back_as_written() -> None:
    python, found = provenance.read_environment(provenance.environment())
    assert python == sys.version.split()[0]
    assert found == provenance.installed()
    assert provenance.OWN not in found
    assert found["pytest"] == pytest.__version__
    wanted = {"pytest": "1.0", "nothing-such": "2.0", "pyyaml": found["pyyaml"]}
    assert provenance.differing(wanted, found) == [
        f"pytest 1.0 (here {pytest.__version__})",
        "nothing-such 2.0 (here missing)",
    ]


def wheel(folder: Path, name: str, version: str) -> None:
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{about}/METADATA", text)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_an_environment_has_the_versions_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.0", "2.0"):
        wheel(tmp_path, "leaf", version)
    monkeypatch.setitem(os.environ, "PIP_NO_INDEX", "1")
    monkeypatch.setitem(os.environ, "PIP_FIND_LINKS", str(tmp_path))
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["leaf>=1"]\n')
    venv = provenance.make_environment(project, {"leaf": "1.0+cpu", "other": "3"})
    assert provenance.installed(venv)["leaf"] == "1.0"
    (project / ".venv/installed").unlink()
    with pytest.raises(ValueError, match="could not be installed"):
        provenance.make_environment(project, {"leaf": "9.0"})


def test_an_environment_has_what_the_stages_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("pyproject.toml", tmp_path)
    (tmp_path / ".venv").mkdir()
    commands: list[list[str]] = []
    monkeypatch.setattr(provenance.subprocess, "run", lambda command, **_: commands.append(command))
    provenance.make_environment(tmp_path, {})
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in commands[-1]}
    assert names >= {"torch", "dvc", "mlflow", "ray", "ruamel.yaml", "pyarrow", "captum"}
    assert "dxai" not in names  # the stages run the code of the clone
