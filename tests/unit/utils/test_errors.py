"""What commands say of errors of the system: the file and the reason, without a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.utils.errors import told


def test_the_system_s_errors_name_the_file_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").read_text()
    assert told(caught.value) == f"{tmp_path}/none: No such file or directory"
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").rename(tmp_path / "other")
    assert told(caught.value) == f"{tmp_path}/none: {tmp_path}/other: No such file or directory"
    assert told(OSError(28, "No space left on device")) == "No space left on device"
    assert told(OSError("ours: whole")) == "ours: whole"
    assert told(ValueError("also: ours")) == "also: ours"
