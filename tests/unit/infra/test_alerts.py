"""When a disk counts as full; tests/integration/test_operations.py has the automations."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import alerts


def test_a_disk_is_full_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(alerts.FREE, "0")
    assert alerts.full_disk(tmp_path) == ""
    monkeypatch.setenv(alerts.FREE, "1000000.5")
    assert f"GiB are free for {tmp_path} on " in alerts.full_disk(tmp_path)
    monkeypatch.setenv(alerts.FREE, "much")
    with pytest.raises(ValueError, match="DXAI_DISK_ALERT is 'much', not a number"):
        alerts.full_disk(tmp_path)
