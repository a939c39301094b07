import os
import subprocess
import sys

import pytest

from dxai.utils.files import (
    atomic,
    atomic_folder,
    digest,
    locked,
    read_json,
    taking_turns,
    write_json,
)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_file_is_whole_or_as_it_was(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error) if isinstance(error, OSError) else error), atomic(path) as new:
        new.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with atomic(path) as new:
        new.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "deep" / "folder"
    with atomic_folder(path) as new:
        (new / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as new:
        (new / "b").write_text("2")
        raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["a"]
    with atomic_folder(path) as new:
        (new / "c").write_text("3")
    assert [p.name for p in path.iterdir()] == ["c"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_json_does_not_depend_on_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1, None]})
    write_json(tmp_path / "b.json", {"a": [1, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1, None], "b": 1}


def test_digests_name_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest("x")) == 12


def test_a_locked_file_is_free_when_its_holder_and_what_inherits_it_have_ended(tmp_path):
    path = tmp_path / "new/lock"
    with locked(path) as file:
        file.write("mine")
        file.flush()
        with locked(path) as other:
            assert other is None
        assert path.read_text() == "mine"
        child = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
    with locked(path) as other:
        assert other is None
    child.kill()
    child.wait()
    with locked(path) as file:
        assert file is not None


WAITS = """
import sys
from pathlib import Path
from dxai.utils.files import taking_turns
with taking_turns(Path(sys.argv[1]), "the item") as other:
    print(other)
"""


def test_a_process_that_comes_second_waits_and_knows_of_the_first(tmp_path):
    command = [sys.executable, "-u", "-c", WAITS, str(tmp_path / "new/turn")]
    with taking_turns(tmp_path / "new/turn", "mine") as other:
        assert other == ""
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = second.stdout.readline()
        assert line == "the item: waiting until another process has done the same\n"
        assert second.poll() is None
    said, _ = second.communicate(timeout=60)
    assert said == f"{os.getpid()}\n"
    assert second.returncode == 0
    with taking_turns(tmp_path / "new/turn", "mine") as other:
        assert other == ""
