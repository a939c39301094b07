"""What a lane writes to dvc.lock, beside what DVC itself writes there."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml, modify_yaml

from dxai.utils.dvc_files import stages
from flows.dvc_lane import modify_lock

VALUES = {
    "nothing": None,
    "like a number": ["1e-3", "010", "1:30", "1_000", "0x10", "123e4567"],
    "like a word of YAML": ["no", "yes", "null", "~", "", "true", ".inf"],
    "numbers": [0, 1e-6, 0.1, 1e22, float("inf"), True],
    "signs": ["a: b", "- a", "# a", "é ü 木", "two\nlines", " space ", "x" * 200, "'", '"'],
    "empty": [[], {}, OrderedDict()],
}


def stage(name: str, **values: Any) -> OrderedDict[str, Any]:
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
            lock["stages"] = stage("b", value=values) | stage("c")
        with modify(path) as lock:
            lock["stages"].update(stage("a", value=values))
            lock["stages"].update(stage("c", value=values))
        paths.append(path)
    for read in (load_yaml, stages):  # DVC's reader, and that of the flow
        ours, of_dvc = map(read, paths)
        assert ours == of_dvc
    assert "!" not in paths[0].read_text(), "a tag of YAML"
    entries = load_yaml(paths[0])["stages"]
    assert list(entries) == ["b", "c", "a"]
    assert entries["a"]["params"]["params.yaml"]["value"] == values


def test_a_lock_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    with modify_lock(path) as lock:
        assert lock == {}
        lock["schema"] = "2.0"
    assert load_yaml(path) == {"schema": "2.0"}
