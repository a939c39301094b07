"""Networks that were named in a folder are trusted there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.library.trust import remember, trusted


def test_named_code_is_trusted_where_the_folder_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trusted() == []
    assert remember("nets:Net") and remember("a.b:C") and remember("nets:Net")
    assert trusted() == ["a.b:C", "nets:Net"]
    assert remember("exported.pt2"), "a file needs no trust"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path(".work").touch()  # no folder can be made
    assert not remember("nets:Net") and trusted() == []
