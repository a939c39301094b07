from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams, split_table
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing, Sample
from dxai.datasets.images import encode
from dxai.datasets.layouts.folder import find
from dxai.datasets.source import open_source
from tests.listings import samples_of

Tree = Callable[..., Path]
PIXEL = encode(np.zeros((1, 1), np.uint8))


def listing(root: Path | str, size: int = 6, channels: int = 3, **options: object) -> Listing:
    root, table = split_table(str(root))
    options |= {"table": table} if table else {}
    dataset = DatasetParams(layout="folder", source=str(root), channels=channels, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=size))


def samples(root: Path | str, **settings: object) -> list[Sample]:
    folder, _ = split_table(str(root))
    return list(samples_of(listing(root, **settings), open_source(folder).load))


def counts(found: Listing) -> dict[tuple[str, str], int]:
    return dict(Counter((unit.split, unit.label) for unit in found.units))


SMALL = {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 3}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "validation", "test"),
        ("Train", "Validation", "Test"),
        ("Training", "val", "testing"),
        ("training", "valid", "Testing"),
    ],
)
def test_split_folders_by_any_name(tree: Tree, names: tuple[str, str, str]) -> None:
    train, validation, test = names
    root = tree({f"{train}/a": 3, f"{train}/b": 2, f"{validation}/a": 1, f"{validation}/b": 1})
    tree({f"{test}/a": 2, f"{test}/b": 1})
    found = listing(root)
    assert found.class_names == ("a", "b")
    assert len(found.units) == 10
    assert counts(found) == {
        ("train", "a"): 3,
        ("train", "b"): 2,
        ("validation", "a"): 1,
        ("validation", "b"): 1,
        ("test", "a"): 2,
        ("test", "b"): 1,
    }


def test_pixels_and_names_are_those_of_the_files(tree: Tree) -> None:
    root = tree(SMALL)
    for sample in samples(root):
        with Image.open(root / sample.source) as image:
            np.testing.assert_array_equal(sample.image, np.asarray(image))
        assert sample.id == sample.group == sample.source
        assert sample.label == Path(sample.source).parent.name


def test_images_are_read_as_they_are_asked_for(tree: Tree) -> None:
    root = tree(SMALL)
    (root / "train/b/003.png").write_bytes(b"")
    found = listing(root)
    (broken,) = [unit for unit in found.units if unit.key == "train/b/003.png"]
    load = open_source(str(root)).load
    whole = [unit for unit in found.units if unit is not broken]
    assert sum(1 for unit in whole for _ in found.read(unit, load)) == 12
    with pytest.raises(DataError, match=r"train/b/003\.png: unreadable image"):
        next(iter(found.read(broken, load)))


def test_any_name_suffix_and_depth(tree: Tree, tmp_path: Path) -> None:
    root = tree({"train/Tomato not Ripened": 2, "train/番茄": 2, "test/Tomato not Ripened": 1})
    tree({"test/番茄": 1, "test/番茄/day 2/é": 2, "train/番茄/.cache": 5, "test/.hidden": 1})
    shutil.copy(root / "test/番茄/000.png", root / "test/番茄/LOUD.PNG")
    found = listing(root)
    assert found.class_names == ("Tomato not Ripened", "番茄")
    assert sum(unit.label == "番茄" for unit in found.units) == 4 + 2
    assert not found.notes and not found.dropped


def test_validation_is_held_out_of_each_class(tree: Tree) -> None:
    sizes = {"a": 40, "b": 12, "c": 7, "d": 2}
    tree({f"train/{label}": size for label, size in sizes.items()})
    found = counts(listing(tree({f"test/{label}": 1 for label in sizes}), validation=0.15))
    # 15% rounded to the nearest, at least 1: 6, 1.8, 1.05, 0.3
    for label, held_out in {"a": 6, "b": 2, "c": 1, "d": 1}.items():
        assert found["validation", label] == held_out
        assert found["train", label] == sizes[label] - held_out
        assert found["test", label] == 1


def held(root: Path, **options: object) -> set[str]:
    return {u.key for u in listing(root, **options).units if u.split == "validation"}


def test_the_held_out_images_follow_the_seed(tree: Tree) -> None:
    root = tree({"train/a": 20, "train/b": 20, "test/a": 1, "test/b": 1})
    assert held(root, seed=1) == held(root, seed=1)
    assert held(root, seed=1) != held(root, seed=2)
    assert all(name.startswith("train/") for name in held(root))


@settings(max_examples=25, deadline=None)
@given(
    images=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 11)), min_size=1, max_size=40),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_groups_are_held_out_whole(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[tuple[str, int]],
    share: float,
    seed: int,
) -> None:
    """A patient may have images of several classes; none is in both train and validation."""
    root = tmp_path_factory.mktemp("groups")
    images = images + [(label, 20 + i) for i, label in enumerate("abcabcabc")]
    for i, (label, patient) in enumerate(images):
        path = root / f"train/{label}/patient-{patient}-image-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL)
    for label in "abc":
        path = root / f"test/{label}/patient-99-image-0.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL)
    splits = defaultdict(set)
    try:
        found = listing(root, 1, 1, group=r"patient-(\d+)", validation=share, seed=seed)
    except DataError as error:
        assert "too few to hold some out" in str(error)
        return
    for unit in found.units:
        splits[unit.group].add(unit.split)
        assert f"patient-{unit.group}-" in unit.key
    assert all(len(found_in) == 1 for found_in in splits.values())
    seen = counts(listing(root, 1, 1, group=r"patient-(\d+)", validation=share, seed=seed))
    assert all(seen[split, label] for split in ("train", "validation") for label in "abc")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("a", "b"), [(10, 20), (20, 10)])
def test_groups_of_several_classes_count_in_each(tree: Tree, a: int, b: int, seed: int) -> None:
    """Ten patients with an image of each class, and ten more of one: 2 of 10 and 4 of 20."""
    root = tree({"train/a": a, "train/b": b, "test/a": 1, "test/b": 1})
    found = counts(listing(root, group=r"/(\d+)", validation=0.2, seed=seed))
    assert (found["validation", "a"], found["validation", "b"]) == (a / 5, b / 5)


def test_groups_of_test_seen_in_train_are_told(tree: Tree) -> None:
    root = tree({"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 1})
    (note,) = listing(root, group=r"([ab]/\d+)").notes
    assert note == "3 groups of test are also in train, first 'a/000'"


def test_files_that_are_no_images_are_told(tree: Tree) -> None:
    root = tree(SMALL)
    (root / "train/a/labels.txt").write_text("a")
    assert listing(root).dropped == (Dropped("no image by its suffix", 1, "train", "a"),)


def test_every_image_outside_the_class_folders_is_counted(tree: Tree) -> None:
    root = tree({"data/" + name: count for name, count in SMALL.items()})
    tree({"data/dev/a": 3, "data/train": 2, "data": 1, "old/train/a": 4, ".": 1})
    assert set(listing(root).dropped) == {
        Dropped("in dev/, not a split's folder", 3),
        Dropped("straight in a split's folder, in no class folder", 2, "train"),
        Dropped("outside the splits' folders", 2),
        Dropped("in old/, not a split's folder", 4),
    }


COMPOSED, DECOMPOSED = "\u00c4pfel", "A\u0308pfel"


def test_folders_that_look_the_same_are_one_class(tree: Tree) -> None:
    """Of two archives, one made on a system that decomposes letters; a space is not seen either."""
    root = tree({f"train/{DECOMPOSED}": 3, f"test/{COMPOSED}": 1, "train/dog": 3, "test/dog ": 1})
    found = listing(root)
    assert found.class_names == ("dog", COMPOSED)
    assert len(found.units) == 8 and not found.notes
    tree({f"train/{COMPOSED}": 1})
    with pytest.raises(DataError, match="are the same class; move the images into one folder"):
        listing(root)


def test_classes_that_differ_only_in_spelling_are_told(tree: Tree) -> None:
    """They may be meant: upper and lower case letters are classes of their own."""
    root = tree({"train/Red_car": 3, "test/Red_car": 1, "train/red car": 3, "test/red car": 1})
    assert listing(root).class_names == ("Red_car", "red car")
    (note,) = listing(root).notes
    assert note == "the names of the classes 'Red_car' and 'red car' differ only in spelling"


def test_a_class_spelt_otherwise_in_a_split_is_named(tree: Tree) -> None:
    root = tree({"train/a": 4, "train/b": 4, "test/a": 2, "test/B": 3})
    with pytest.raises(DataError, match=r"test/B: class 'B' is absent from train; there is 'b'"):
        listing(root)


def test_chosen_classes(tree: Tree) -> None:
    root = tree(SMALL | {"train/c": 1, "train/d": 3, "test/d": 1})
    found = listing(root, classes=["d", "a"])
    assert found.class_names == ("a", "d")
    rule = "a class that is not among options.classes"
    assert set(found.dropped) == {
        Dropped(rule, 4, "train", "b"),
        Dropped(rule, 3, "test", "b"),
        Dropped(rule, 1, "train", "c"),
    }
    with pytest.raises(DataError, match=r"no class 'e'; there are a, b, c, d"):
        listing(root, classes=["a", "e"])


@pytest.mark.parametrize("form", ["$DXAI_TEST_DATA/raw", "${DXAI_TEST_DATA}/raw", "~/raw"])
def test_source_is_expanded(tree: Tree, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    root = tree(SMALL)
    monkeypatch.setenv("DXAI_TEST_DATA", str(root.parent))
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(listing(form).units) == 13


@pytest.mark.parametrize("value", [None, ""])
def test_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("DXAI_TEST_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("DXAI_TEST_DATA", value)
    with pytest.raises(DataError, match="variable DXAI_TEST_DATA is not set"):
        listing("$DXAI_TEST_DATA/raw")


def no_folder(root: Path) -> None:
    shutil.rmtree(root)


def no_split(root: Path) -> None:
    shutil.rmtree(root / "test")


def two_names(root: Path) -> None:
    (root / "Training").mkdir()


def no_classes(root: Path) -> None:
    for path in (root / "train").iterdir():
        shutil.rmtree(path)


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train/b")
    shutil.rmtree(root / "test/b")


def empty_class(root: Path) -> None:
    for path in (root / "train/b").iterdir():
        path.unlink()


def only_in_test(root: Path) -> None:
    (root / "test/c").mkdir()


def only_in_train(root: Path) -> None:
    (root / "train/c").mkdir()


def one_image(root: Path) -> None:
    for path in sorted((root / "train/a").iterdir())[1:]:
        path.unlink()


def not_utf8(root: Path) -> None:
    (root / "train/a/000.png").rename(
        root / "train/a" / b"\xff.png".decode(errors="surrogateescape")
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_folder, "raw: no such folder"),
        (no_split, "raw: no test folder (named test or testing)"),
        (two_names, "raw: Training and train are both folders of train; take one"),
        (no_classes, "raw/train: no class folders"),
        (one_class, "raw: only one class, 'a'"),
        (empty_class, "raw/train/b: no images (.bmp"),
        (only_in_test, "raw/test/c: class 'c' is absent from train"),
        (only_in_train, "raw/test: class 'c' of train is absent"),
        (one_image, "class 'a': 1 group(s) in train, too few to hold some out"),
        (not_utf8, "is not valid UTF-8"),
    ],
)
def test_bad_trees(tree: Tree, spoil: Callable[[Path], None], message: str) -> None:
    root = tree(SMALL)
    spoil(root)
    with pytest.raises(DataError, match=re.escape(message)):
        listing(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"validaton": 0.1},
            "unknown 'validaton'; valid are classes, group, seed, table, validation",
        ),
        ({"validation": 0.0}, "validation is 0.0"),
        ({"validation": "a"}, "options.validation is 'a'"),
        ({"group": "("}, "is not a regular expression"),
        ({"group": "patient"}, "captures nothing"),
        ({"classes": "a"}, "options.classes is 'a'"),
    ],
)
def test_bad_options(tree: Tree, options: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        listing(tree(SMALL), **options)


def test_path_without_a_group_is_named(tree: Tree) -> None:
    with pytest.raises(DataError, match=r"train/a/000\.png: the group pattern"):
        listing(tree(SMALL), group=r"patient-(\d+)")


ROWS = [
    f"{split}/{label}/{i:03d}.png,{label},{split}"
    for split, label, count in (
        ("train", "a", 4),
        ("train", "b", 4),
        ("test", "a", 2),
        ("test", "b", 3),
    )
    for i in range(count)
]


def table(root: Path, rows: list[str], head: str = "path,label,split", start: bytes = b"") -> Path:
    path = root / "list.csv"
    path.write_bytes(start + "\n".join([head, *rows, ""]).encode())
    return path


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_table_gives_what_the_folders_give(tree: Tree, start: bytes, end: str) -> None:
    root = tree(SMALL)
    path = table(root, ROWS, start=start)
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    for found, wanted in zip(samples(path), samples(root), strict=True):
        np.testing.assert_array_equal(found.image, wanted.image)
        assert replace(found, image=wanted.image) == wanted


def test_table_decides_split_and_class(tree: Tree) -> None:
    """Any folders, columns in any order and beside others, splits by any of their names."""
    root = tree({"one": 6, "two, three": 3})
    rows = [f"Training,one/{i:03d}.png,{'ab'[i % 2]},x" for i in range(6)]
    rows += [f'TEST,"two, three/{i:03d}.png",{label},x' for i, label in enumerate("aab")]
    found = listing(table(root, rows, "split,path,label,what"), validation=0.34)
    assert counts(found) == {
        ("train", "a"): 2,
        ("train", "b"): 2,
        ("validation", "a"): 1,
        ("validation", "b"): 1,
        ("test", "a"): 2,
        ("test", "b"): 1,
    }
    assert not found.dropped


def test_table_names_validation_images_itself(tree: Tree) -> None:
    root = tree(SMALL)
    rows = [row.replace("train", "valid") if "/003" in row else row for row in ROWS]
    rows = [row.replace("valid/", "train/") for row in rows]
    held = [unit.key for unit in listing(table(root, rows)).units if unit.split == "validation"]
    assert sorted(held) == ["train/a/003.png", "train/b/003.png"]


def test_group_column_of_a_table(tree: Tree) -> None:
    """Two images a group; an empty cell leaves the image to itself, or to the pattern."""
    root = tree({"train/a": 8, "train/b": 8, "test/a": 1, "test/b": 1})
    rows = [f"train/{k}/{i:03d}.png,{k},train,{k}{i // 2}" for k in "ab" for i in range(8)]
    rows += ["test/a/000.png,a,test,", "test/b/000.png,b,test,"]
    path = table(root, rows, "path,label,split,group")
    found = listing(path, validation=0.25)
    groups = {unit.group: set() for unit in found.units}
    for unit in found.units:
        groups[unit.group].add(unit.split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert sorted(groups) == sorted(
        [f"{k}{n}" for k in "ab" for n in range(4)] + ["test/a/000.png", "test/b/000.png"]
    )
    assert counts(found)["validation", "a"] == counts(found)["validation", "b"] == 2
    groups = {unit.group for unit in listing(path, group=r"(\d+)").units if unit.split == "test"}
    assert groups == {"000"}


def test_chosen_classes_of_a_table(tree: Tree) -> None:
    root = tree(SMALL | {"train/c": 2})
    path = table(root, [*ROWS, "train/c/000.png,c,train", "train/c/001.png,c,train"])
    found = listing(path, classes=["a", "b"])
    assert found.class_names == ("a", "b")
    (dropped,) = {(one.split, one.label) for one in found.dropped}
    assert dropped == ("train", "c")
    assert sum(one.count for one in found.dropped) == 2
    with pytest.raises(DataError, match=r"no class 'd'; there are a, b, c"):
        listing(path, classes=["a", "d"])


def test_images_that_a_table_does_not_name_are_counted(tree: Tree) -> None:
    root = tree(SMALL | {"dev/a": 2})
    assert listing(table(root, ROWS)).dropped == (Dropped("not in list.csv", 2),)


SPREADSHEETS = {
    "semicolons": lambda text: text.replace(",", ";"),
    "semicolons, said so": lambda text: "sep=;\r\n" + text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "quotes": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text),
    "spaces": lambda text: text.replace(",", " , ").replace("path", " path"),
    "a quote after a space": lambda text: re.sub(r",(\w+)", r', "\g<1>"', text),
    "capitals in the header": lambda text: text.replace("path,label,split", "Path,LABEL,Split"),
    "backslashes": lambda text: text.replace("/", "\\"),
    "from this folder": lambda text: text.replace("\ntrain/", "\n./train/"),
    "old line ends": lambda text: text.replace("\n", "\r"),
    "empty rows": lambda text: text.replace("\n", "\n\n,,\n"),
    "empty columns": lambda text: text.replace("\n", ",,\n"),
}


@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_tables_of_spreadsheets_are_read_alike(tree: Tree, kind: str) -> None:
    root = tree(SMALL)
    wanted = [(u.key, u.split, u.label) for u in listing(table(root, ROWS)).units]
    text = SPREADSHEETS[kind]((root / "list.csv").read_text())
    (root / "list.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = listing(root / "list.csv")
    assert [(u.key, u.split, u.label) for u in found.units] == wanted


def test_labels_of_a_table_that_look_the_same_are_one_class(tree: Tree) -> None:
    root = tree({"one": 8})
    names = (COMPOSED, DECOMPOSED, f" {COMPOSED}", "red  dog", "red dog", "red\u00a0dog ")
    rows = [f"one/{i:03d}.png,{name},train" for i, name in enumerate(names)]
    rows += [f"one/006.png,{COMPOSED},test", "one/007.png,red dog,test"]
    found = listing(table(root, rows))
    assert found.class_names == ("red dog", COMPOSED)
    assert len(found.units) == 8


def test_paths_in_another_unicode_form_are_found(tree: Tree) -> None:
    root = tree({f"train/{DECOMPOSED}": 4, "train/b": 4, "test/a": 1, "test/b": 1})
    rows = [f"train/{COMPOSED}/{i:03d}.png,a,train" for i in range(4)]
    rows += [f"train/b/{i:03d}.png,b,train" for i in range(4)]
    rows += ["test/a/000.png,a,test", "test/b/000.png,b,test"]
    assert len(listing(table(root, rows)).units) == 10


FAULTS = {
    "in capitals": ("train/A/003.PNG,a,train", "003.PNG does not exist; there is train/a/003.png"),
    "unseen character": ("train/a/003.png,a\u200b,train", "line 3: the label 'a\\u200b' has char"),
    "no such image": ("train/a/9.png,a,train", "line 3: train/a/9.png does not exist"),
    "no label": ("train/a/003.png,,train", "line 3: no label"),
    "no split": ("train/a/003.png,a,", "line 3: no split"),
    "odd split": ("train/a/003.png,a,dev", "line 3: unknown split 'dev'; valid are train"),
    "no path": (",a,train", "line 3: no path"),
    "too short": ("train/a/003.png", "line 3: no label"),
    "too long": ("train/a/003.png,a,train,7", "line 3: 4 fields"),
    "twice": ("train/a/000.png,a,train", "line 3: train/a/000.png for the second time"),
    "in two splits": ("train/a/000.png,a,test", "line 3: train/a/000.png for the second time"),
    "upwards": (
        "../raw/train/a/003.png,a,train",
        "line 3: '../raw/train/a/003.png' is not a plain",
    ),
    "inner upwards": ("train/../train/a/003.png,a,train", "line 3: 'train/../train/a/003.png'"),
    "absolute": ("/etc/passwd,a,train", "line 3: '/etc/passwd' is not a plain path"),
    "url": ("s3://bucket/003.png,a,train", "line 3: 's3://bucket/003.png' is not a plain path"),
    "drive": ("C:\\003.png,a,train", "line 3: 'C:/003.png' is not a plain path"),
    "newline": ('"train/a/\n003.png",a,train', "line 4: 'train/a/\\n003.png' is not a plain path"),
    "null byte": ("train/a/003.png\0,a,train", "line 3: "),
    "hidden": (".git/config,a,train", "line 3: .git/config does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_table_are_named_with_their_line(tree: Tree, fault: str) -> None:
    """A line that is amiss stands between two that are fine."""
    row, message = FAULTS[fault]
    root = tree(SMALL)
    (root / ".git").mkdir()
    (root / ".git/config").write_text("secret")
    rows = [ROWS[0], row, *ROWS[1:3], *ROWS[4:]]
    with pytest.raises(DataError, match=re.escape("list.csv, ") + ".*" + re.escape(message)):
        listing(table(root, rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "list.csv, line 1: no column path, label, split, there is nothing"),
        (b"file;class;set\n", "no column path, label, split, there is file;class;set"),
        (b"path;label;set\n", "list.csv, line 1: no column split, there is path, label, set"),
        (b"path,label\ntrain/a/000.png,a\n", "list.csv, line 1: no column split"),
        (b"path,label,split,Label\n", "list.csv, line 1: 2 columns label"),
        (b"path,label,split\n", "list.csv: 0 class(es)"),
        ("path,label,split\nü.png,a,train\n".encode("latin-1"), "list.csv, line 2: not UTF-8"),
        ("path,label,split\n".encode("utf-16"), "list.csv, line 1: not UTF-8"),
        (b'path,label,split\n"train/a/000.png,a,train\n', "list.csv, line 2: "),
    ],
    ids=[
        "empty",
        "other names",
        "semicolons",
        "no split",
        "label twice",
        "header alone",
        "latin-1",
        "utf-16",
        "open quote",
    ],
)
def test_tables_that_are_none(tree: Tree, content: bytes, message: str) -> None:
    root = tree(SMALL)
    (root / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        listing(root / "list.csv")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_class_without_images_in_a_split_of_a_table_is_named(tree: Tree, split: str) -> None:
    root = tree(SMALL)
    rows = [row.replace(",train", ",validation") if "/003" in row else row for row in ROWS]
    rows = [row for row in rows if not row.endswith(f",b,{split}")]
    with pytest.raises(DataError, match=rf"list\.csv: class 'b' has no image in {split}"):
        listing(table(root, rows))


def test_missing_table_is_named(tree: Tree) -> None:
    with pytest.raises(DataError, match=r"raw/other\.csv: no such file"):
        listing(tree(SMALL) / "other.csv")


def with_truth(root: Path, kind: str, pixels: np.ndarray) -> None:
    path = root / f"truth/{kind}/train/a/000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)


def test_mask_and_neutral_beside_the_images(tree: Tree) -> None:
    """Of an 8 x 6 image, the centred 6 x 6 at 3 px; the mask is the share of four pixels."""
    root = tree(SMALL)
    Image.new("RGB", (8, 6), (9, 9, 9)).save(root / "train/a/000.png")
    inside = np.zeros((6, 8), np.uint8)
    inside[:3, :4] = 255
    with_truth(root, "mask", inside)
    with_truth(root, "neutral", np.full((6, 8, 3), (10, 20, 30), np.uint8))
    for sample in samples(root, size=3):
        if sample.id != "train/a/000.png":
            assert sample.mask is sample.neutral is None
            continue
        assert sample.mask is not None and sample.mask.dtype == np.uint8
        # 3 of 6 columns of the square are inside, so the middle pixel has one of two.
        share = np.outer([1, 0.5, 0], [1, 0.5, 0])
        np.testing.assert_allclose(sample.mask, 255 * share, atol=1)
        assert sample.neutral is not None
        np.testing.assert_array_equal(sample.neutral, np.full((3, 3, 3), (10, 20, 30)))


@pytest.mark.parametrize("kind", ["mask", "neutral"])
def test_truth_of_another_size_is_named(tree: Tree, kind: str) -> None:
    root = tree(SMALL)
    with_truth(root, kind, np.zeros((6, 7), np.uint8))
    with pytest.raises(DataError, match=rf"truth/{kind}/train/a/000\.png: \(7, 6\) pixels"):
        samples(root)


def test_mask_of_0_and_1_is_a_mask(tree: Tree) -> None:
    root = tree(SMALL)
    with_truth(root, "mask", np.tri(6, dtype=np.uint8))
    (mask,) = (sample.mask for sample in samples(root, size=6) if sample.mask is not None)
    np.testing.assert_array_equal(mask, 255 * np.tri(6))


def test_broken_truth_is_named(tree: Tree) -> None:
    root = tree(SMALL)
    with_truth(root, "mask", np.zeros((6, 6), np.uint8))
    (root / "truth/mask/train/a/000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"truth/mask/train/a/000\.png: unreadable"):
        samples(root)


def test_truth_is_no_split_and_no_class(tree: Tree) -> None:
    root = tree(SMALL)
    for name in (*SMALL, "train/c"):
        tree({f"truth/mask/{name}": 1})
    found = listing(root)
    assert found.class_names == ("a", "b")
    assert len(found.units) == 13
