"""Where a run may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import workspace
from flows.workspace import NoRoom, check_room
from tests.conftest import Mount


def test_a_folder_with_room_is_made_and_left_empty(tmp_path: Path) -> None:
    check_room([tmp_path / "deep/new", tmp_path])
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "new"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoRoom, match=r"file/in cannot be written to: Not a directory"):
        check_room([tmp_path, tmp_path / "file/in"])
    if read_only := mount("1m", None, "ro"):
        with pytest.raises(NoRoom, match=f"{read_only} cannot be written to: Read-only"):
            check_room([read_only])


def test_a_disk_that_is_nearly_full_is_named(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small := mount("2m"):
        with pytest.raises(NoRoom, match=f"{small} has 2 MiB free; a run needs 256 or more"):
            check_room([tmp_path, small])
    monkeypatch.setattr(workspace, "MIN_FREE", 1 << 60)
    with pytest.raises(NoRoom, match=f"{tmp_path} has .* MiB free"):
        check_room([tmp_path])
