"""Folders on this machine, and the valid texts of a source."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import DataError
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.samples import shapes
from dxai.datasets.source import (
    LocalSource,
    RemoteSource,
    check_plain_path,
    expand,
    is_hidden,
    open_source,
)
from dxai.utils.storage import StorageError
from tests.listings import samples_of


def write(root: Path, *names: str) -> None:
    """Write files that contain their own names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def content(source: LocalSource) -> dict[str, str]:
    return {file.name: source.load(file).decode() for file in source.files()}


def error(call: object) -> str:
    """Return the message, a single line, of the error that a call raises."""
    with pytest.raises((DataError, StorageError)) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_names_in_any_script(tmp_path: Path) -> None:
    names = [
        "a b/猫 🐈.png",
        "a b/ leading and trailing .png",
        "x+y%20z.png",
        "was?#&=*[1]~$HOME.png",
        "ü/composed.png",
        unicodedata.normalize("NFD", "ü/decomposed.png"),
        "מים/ماء/水.JPG",
        "no suffix",
    ]
    write(tmp_path, *names)
    source = LocalSource(tmp_path)
    assert content(source) == {name: name for name in names}
    assert [file.name for file in source.files()] == sorted(names)


def test_hidden_files_are_skipped_and_empty_folders_told(tmp_path: Path) -> None:
    write(tmp_path, "a/1", ".git/config", "a/.DS_Store", "b/.thumbs/1")
    (tmp_path / "c/d").mkdir(parents=True)
    source = LocalSource(tmp_path)
    assert list(content(source)) == ["a/1"]
    assert sorted(source.empty) == ["b", "c/d"]
    assert sorted(source.hidden) == [".git", "a/.DS_Store", "b/.thumbs"]


def test_a_root_that_is_a_link_and_links_within(tmp_path: Path) -> None:
    write(tmp_path / "there/raw", "a/1", "b/2")
    (tmp_path / "there/raw/c").symlink_to("a")
    (tmp_path / "there/raw/b/3").symlink_to(tmp_path / "there/raw/a/1")
    (tmp_path / "here").symlink_to(tmp_path / "there")
    found = content(LocalSource(tmp_path / "here/raw"))
    assert found == {"a/1": "a/1", "b/2": "b/2", "b/3": "a/1", "c/1": "a/1"}


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "../secret", "../raw-other/1"])
def test_a_link_that_leaves_the_folder(tmp_path: Path, target: str) -> None:
    write(tmp_path, "raw/a/1", "secret", "raw-other/1")
    (tmp_path / "raw/z").symlink_to(target)
    message = error(LocalSource(tmp_path / "raw").files)
    assert message == f"{tmp_path}/raw/z: a link that leaves {tmp_path}/raw"


@pytest.mark.parametrize(
    ("links", "culprit"),
    [
        ({"a/up": ".."}, "a/up"),
        ({"a/self": "."}, "a/self"),
        ({"a/b": "../c", "c/d": "../a"}, "a/b/d"),
        ({"loop": "loop"}, "loop"),
        ({"one": "two", "two": "one"}, "one"),
        ({"gone": "nothing"}, "gone"),
    ],
)
def test_links_in_a_circle_or_to_nothing(
    tmp_path: Path, links: dict[str, str], culprit: str
) -> None:
    write(tmp_path, "a/1", "c/1")
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert error(LocalSource(tmp_path).files).startswith(f"{tmp_path}/{culprit}: ")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\\b", "a\x7f", "a\x1b[31m", "a\x85b"])
def test_a_name_that_is_no_plain_path(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"train/{name}")
    assert error(LocalSource(tmp_path).files).endswith(
        f"{f'train/{name}'!r} is not a plain path below it"
    )


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "w"):
        pass
    message = error(LocalSource(tmp_path).files)
    assert message == f"{tmp_path}: the file name 'caf\\udce9.png' is not valid UTF-8"


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    message = error(LocalSource(tmp_path).files)
    assert message == f"{tmp_path}/image.png: neither a file nor a folder"


@pytest.mark.parametrize("text", ["other", "same!", "sam"])
def test_a_file_that_changes_after_it_was_listed(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_text("same?")
    source = LocalSource(tmp_path)
    (file,) = source.files()
    (tmp_path / "a.png").write_text(text)
    message = error(lambda: source.load(file))
    assert message == f"{tmp_path}/a.png: changed while the dataset was being read"


def test_a_file_that_goes_after_it_was_listed(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    source = LocalSource(tmp_path)
    (file,) = source.files()
    (tmp_path / "a.png").unlink()
    message = error(lambda: source.load(file))
    assert message == f"{tmp_path}/a.png: cannot be read (No such file or directory)"


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Drop the privileges of root, which may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that any user can reach; those above `tmp_path` are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_what_is_closed_to_us(open_folder: Path) -> None:
    write(open_folder, "a/1", "b/c/1")
    source = LocalSource(open_folder)
    file, _ = source.files()
    (open_folder / "a/1").chmod(0)
    with unprivileged():
        message = error(lambda: source.load(file))
    assert message == f"{open_folder}/a/1: cannot be read (Permission denied)"
    (open_folder / "b").chmod(0)
    with unprivileged():
        assert error(source.files) == f"{open_folder}/b: cannot be listed (Permission denied)"
        below = LocalSource(open_folder / "b/c")
        assert error(below.files) == f"{open_folder}/b/c: no such folder"


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_a_folder_that_is_none(tmp_path: Path, name: str) -> None:
    write(tmp_path, "file")
    assert error(LocalSource(tmp_path / name).files) == f"{tmp_path}/{name}: no such folder"


def test_home_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DXAI_TEST_DATA", "data sets")
    monkeypatch.delenv("DXAI_TEST_UNSET", raising=False)
    monkeypatch.setenv("DXAI_TEST_EMPTY", "")
    assert expand("~/raw") == f"{tmp_path}/raw"
    assert expand("$HOME/$DXAI_TEST_DATA") == f"{tmp_path}/data sets"
    assert expand("/x${DXAI_TEST_DATA}y") == "/xdata setsy"
    assert expand("s3://bucket/${DXAI_TEST_DATA}/~") == "s3://bucket/data sets/~"
    for name in ("DXAI_TEST_UNSET", "DXAI_TEST_EMPTY"):
        for text in (f"${name}/raw", f"s3://${{{name}}}/raw"):
            message = error(lambda text=text: open_source(text))
            assert message == f"source {text!r}: the environment variable {name} is not set"


def test_url_of_a_local_folder(tmp_path: Path) -> None:
    write(tmp_path, "a b/1")
    source = open_source(f"file://{tmp_path}")
    assert isinstance(source, LocalSource)
    assert content(source) == {"a b/1": "a b/1"}


def test_a_table_and_its_folder_are_the_same_images(tmp_path: Path) -> None:
    shapes.render_sample(tmp_path)
    images = [
        p.relative_to(tmp_path) for p in sorted(tmp_path.glob("t*/*/*")) if "truth" not in p.parts
    ]
    rows = [f"{path},{path.parts[1]},{path.parts[0]}" for path in images]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *rows]))

    def samples(**options: str) -> dict[str, tuple[str, bytes]]:
        source = open_source(str(tmp_path))
        dataset = DatasetParams(layout="folder", source=source.name, channels=3, options=options)
        listing = LAYOUTS["folder"].find(source, dataset, PrepareParams(image_size=8))
        found = samples_of(listing, source.load)
        return {sample.id: (sample.label, np.asarray(sample.image).tobytes()) for sample in found}

    assert samples(table="all.csv") == samples()


def is_plain(name: str) -> bool:
    """The same judgement by the path library of Python and the tables of Unicode."""
    path = PurePosixPath(name)
    return (
        name == str(path) != "."
        and not path.is_absolute()
        and ".." not in path.parts
        and ":" not in path.parts[0]
        and "\\" not in name
        and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
    )


@given(
    st.text(st.sampled_from("a.:/\\\n\x85\ud800é🐈 "), max_size=8)
    | st.text(st.characters(exclude_categories=()))
)
@example("a/../b")
@example("a/./b")
@example("//a")
@example("a//b")
@example("a/b:c")
def test_names_that_are_taken_are_plain_paths(name: str) -> None:
    try:
        taken = check_plain_path(name, "here") == name
    except DataError as caught:
        assert str(caught).startswith("here: ")
        assert len(str(caught).splitlines()) == 1
        taken = False
    assert taken == is_plain(name)


@given(st.lists(st.text("a.", min_size=1, max_size=3), min_size=1, max_size=4))
def test_hidden_is_a_name_after_a_dot(parts: list[str]) -> None:
    """`.` and `..` are not names of files; `check_plain_path` refuses them."""
    assert is_hidden("/".join(parts)) == any(
        (p[0] == "." and p.strip(".")) or p == "..." for p in parts
    )


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIDEXAMPLE:sEcReT@bucket/raw",
        "s3://AKIDEXAMPLE:sEc/ReT@bucket/raw",
        "s3://AKIDEXAMPLE:sEcReT@bucket/$DXAI_TEST_UNSET",
        "https://AKIDEXAMPLE@example.org/raw/all.csv",
        "sftp://AKIDEXAMPLE:sEcReT@example.org:22/raw",
        "$DXAI_TEST_URL/raw",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DXAI_TEST_URL", "s3://AKIDEXAMPLE:sEcReT@bucket")
    message = error(lambda: open_source(url))
    assert "credentials in the URL; leave them to the environment" in message
    assert not any(part in message for part in ("AKID", "sEc", "ReT"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a@b:c/raw",
        "https://example.org:8443/raw",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/raw",
        "file:///data/a@b/raw",
    ],
)
def test_at_signs_and_colons_that_are_no_credentials(url: str) -> None:
    assert open_source(url).name in (url, url.removeprefix("file://"))


@pytest.mark.parametrize("url", ["s3://", "s3:///", "file:"])
def test_a_url_of_nothing(url: str) -> None:
    assert (
        error(lambda: open_source(url))
        == f"source {url!r} without a bucket or folder; expected s3://bucket/prefix"
    )


def test_a_protocol_that_is_unknown() -> None:
    message = error(open_source("s5://bucket/raw").files)
    assert message == "s5://bucket/raw: Protocol not known: s5"


def test_any_file_system_of_fsspec(tmp_path: Path) -> None:
    """Its own view of this machine stands in for one across a network."""
    write(tmp_path, "a/1.png", "a/2.png", ".hidden")
    source = open_source(f"local://{tmp_path}")
    assert isinstance(source, RemoteSource)
    first, second = source.files()
    assert source.hidden == [".hidden"]
    assert (first.name, source.load(first)) == ("a/1.png", b"a/1.png")
    (tmp_path / "a/2.png").write_text("A/2.PNG")
    message = error(lambda: source.load(second))
    assert message == f"local://{tmp_path}/a/2.png: changed while the dataset was being read"
