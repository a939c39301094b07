import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dxai.utils.files import (
    ROOM,
    atomic,
    atomic_folder,
    digest,
    locked,
    read_json,
    remove,
    require_folder,
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


def test_a_full_disk_names_the_file(tmp_path):
    for writer, name in ((atomic, "a.txt"), (atomic_folder, "b")):
        with pytest.raises(OSError) as caught, writer(tmp_path / name):
            raise OSError(28, "No space left on device")  # as of `write`
        assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / name))
        with pytest.raises(FileNotFoundError) as caught, writer(tmp_path / name) as new:
            (new / "none/x").write_text("x")
        assert caught.value.filename == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), atomic(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_text()  # its name stays


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("file", "file: file is a file; name another folder"),
        ("file/deep/er", "file/deep/er: .*/file is a file; name another folder"),
        ("link", "link: link is a link that leads nowhere; name another folder"),
        ("/proc/none/x", r"/proc/none/x: /proc takes no files \(No such file or directory\); name"),
    ],
)
def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("link").symlink_to("nowhere")
    if path.startswith("/proc") and sys.platform != "linux":
        pytest.skip("there is no /proc")
    with pytest.raises(OSError) as caught:
        require_folder(Path(path))
    assert re.match(expected, str(caught.value))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_without_room_is_refused_and_others_stay_as_they_were(tmp_path):
    require_folder(tmp_path)
    require_folder(tmp_path / "new/folder")
    assert list(tmp_path.iterdir()) == []
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, tmp_path], capture_output=True, text=True, timeout=60
    )
    said = f"{tmp_path}: {tmp_path} takes no files (File too large); name another folder\n"
    assert done.stdout == said, done.stderr


NO_ROOM = f"""
import resource, signal, sys
from pathlib import Path
from dxai.utils.files import require_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM // 2}, {ROOM // 2}))
try:
    require_folder(Path(sys.argv[1]))
except OSError as error:
    print(error)
"""
"""A limit of the size of files stands in for a full disk."""


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


def test_what_is_removed_is_a_file_a_link_or_a_folder_and_never_what_a_link_leads_to(
    tmp_path: Path,
) -> None:
    kept, folder, link = tmp_path / "kept", tmp_path / "folder", tmp_path / "link"
    for each in (kept, folder):
        each.mkdir()
        (each / "file").write_text("x")
    link.symlink_to(kept)
    for path in (folder, link, kept / "file", tmp_path / "missing"):
        remove(path)
    assert list(tmp_path.rglob("*")) == [kept]
