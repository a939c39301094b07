"""What a lane writes to dvc.lock, beside what DVC itself writes there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml, modify_yaml

from dxai.utils.dvc_files import stages
from flows.dvc_lane import modify_lock
from flows.lanes import Lane

VALUES = {
    "nothing": None,
    "like a number": ["1e-3", "010", "1:30", "1_000", "0x10", "123e4567"],
    "like a word of YAML": ["no", "yes", "null", "~", "", "true", ".inf"],
    "numbers": [0, 1e-6, 0.1, 1e22, float("inf"), True],
    "signs": ["a: b", "- a", "# a", "é ü 木", "two\nlines", " space ", "x" * 200, "'", '"'],
    "empty": [[], {}, OrderedDict()],
}


def entry(name: str, **values: Any) -> OrderedDict[str, Any]:
    """Return an entry as DVC makes it; its parts are in no order of the alphabet."""
    deps = [OrderedDict(path="z", hash="md5", md5="0" * 32, size=3), OrderedDict(path="a")]
    params = OrderedDict({"params.yaml": OrderedDict(values)})
    return OrderedDict({name: OrderedDict(cmd=f"python {name}", deps=deps, params=params)})


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_a_lock_is_what_dvc_would_have_written(tmp_path: Path, values: Any) -> None:
    """Both read what DVC has written, add an entry, and change one."""
    paths = []
    for modify in (modify_lock, modify_yaml):
        path = tmp_path / modify.__name__ / "dvc.lock"
        path.parent.mkdir()
        with modify_yaml(path) as lock:
            lock["schema"] = "2.0"
            lock["stages"] = entry("b", value=values) | entry("c")
        with modify(path) as lock:
            lock["stages"].update(entry("a", value=values))
            lock["stages"].update(entry("c", value=values))
        paths.append(path)
    ours, of_dvc = map(load_yaml, paths)
    assert ours == of_dvc
    assert "!" not in paths[0].read_text(), "a tag of YAML"
    assert all(isinstance(found, dict) for found in stages(paths[0]).values())  # the flow's reader
    assert list(ours["stages"]) == ["b", "c", "a"]
    assert ours["stages"]["a"]["params"]["params.yaml"]["value"] == values


@pytest.mark.parametrize("before", [None, "", "null\n"], ids=["none", "empty", "null"])
def test_a_lock_is_begun(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "dvc.lock"
    if before is not None:
        path.write_text(before)
    with modify_lock(path) as lock:
        assert lock == {}
        lock["schema"] = "2.0"
    assert load_yaml(path) == {"schema": "2.0"}


def test_a_failed_change_leaves_the_lock_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text("schema: '2.0'\n")
    with pytest.raises(KeyError), modify_lock(path) as lock:
        lock["schema"] = lock.pop("stages")
    assert path.read_text() == "schema: '2.0'\n"


def test_a_lock_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    change = f"with modify_lock({str(path)!r}) as lock: lock['a'] = chr(0x6728)"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", f"from flows.dvc_lane import modify_lock\n{change}"],
        env=os.environ | plain,
        check=True,
    )
    assert load_yaml(path) == {"a": "木"}


def test_the_dvc_of_a_lane_writes_so(tmp_path: Path) -> None:
    """DVC's own function leaves out the word `null`."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "params.yaml").write_text("layer:\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo made\n    params: [layer]\n")
    lane = Lane(tmp_path, dict(os.environ))
    try:
        assert "made" in list(lane.run("a"))
    finally:
        lane.end()
        lane.close()
    assert "layer: null" in (tmp_path / "dvc.lock").read_text()
