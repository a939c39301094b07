"""The folder for temporary files of one user, and Python by a path without a space."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dxai.utils import own_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_it_is_the_user_s_alone_and_children_use_the_same(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder.own_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert own_folder.own_folder() == folder
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert own_folder.own_folder() == folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(temporary: Path) -> None:
    own_folder.own_folder().rmdir()
    theirs = temporary / f"dxai-{os.getuid()}"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to another user; set TMPDIR"):
        own_folder.own_folder()


def test_python_in_a_path_with_a_space_gets_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert " " in sys.executable or own_folder.python_without_space() == sys.executable
    venv = tmp_path / "my project/.venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    monkeypatch.setattr(sys, "executable", str(venv / "bin/python"))
    found = own_folder.python_without_space()
    assert " " not in found
    asked = [found, "-c", "import os, sys; print(os.path.realpath(sys.prefix))"]
    prefix = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert prefix == os.path.realpath(venv)
    assert own_folder.python_without_space() == found
