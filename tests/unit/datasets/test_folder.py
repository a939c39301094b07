from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxai.datasets import DataError, Listing
from dxai.datasets.folder import folder
from dxai.datasets.images import encode
from dxai.params import DatasetParams, ParamsError, PrepareParams

Tree = Callable[..., Path]
PIXEL = encode(np.zeros((1, 1), np.uint8))


def listing(root: Path | str, size: int = 6, channels: int = 3, **options: object) -> Listing:
    dataset = DatasetParams("folder", str(root), channels, options)
    return folder(dataset, PrepareParams(image_size=size))


def counts(found: Listing) -> dict[tuple[str, str], int]:
    return dict(Counter((sample.split, sample.label) for sample in found))


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
    assert found.total == 10
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
    for sample in listing(root):
        with Image.open(root / sample.source) as image:
            np.testing.assert_array_equal(sample.image, np.asarray(image))
        assert sample.id == sample.group == sample.source
        assert sample.label == Path(sample.source).parent.name


def test_images_are_read_as_they_are_asked_for(tree: Tree) -> None:
    root = tree(SMALL)
    found = listing(root)
    (root / "test/b/002.png").write_bytes(b"")
    samples = iter(found)
    for _ in range(found.total - 1):
        next(samples)
    with pytest.raises(DataError, match=r"test/b/002\.png"):
        next(samples)


def test_any_name_suffix_and_depth(tree: Tree, tmp_path: Path) -> None:
    root = tree({"train/Tomato not Ripened": 2, "train/番茄": 2, "test/Tomato not Ripened": 1})
    tree({"test/番茄": 1, "test/番茄/day 2/é": 2, "train/番茄/.cache": 5, "test/.hidden": 1})
    shutil.copy(root / "test/番茄/000.png", root / "test/番茄/LOUD.PNG")
    found = listing(root)
    assert found.class_names == ("Tomato not Ripened", "番茄")
    assert sum(sample.label == "番茄" for sample in found) == 4 + 2
    assert not found.notes


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
    return {s.id for s in listing(root, **options) if s.split == "validation"}


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
    for sample in found:
        splits[sample.group].add(sample.split)
        assert f"patient-{sample.group}-" in sample.id
    assert all(len(places) == 1 for places in splits.values())
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
    (note,) = listing(root).notes
    assert note == "1 files that are no images were left out, first train/a/labels.txt"


def test_chosen_classes(tree: Tree) -> None:
    root = tree(SMALL | {"train/c": 1, "train/d": 3, "test/d": 1})
    assert listing(root, classes=["d", "a"]).class_names == ("a", "d")
    with pytest.raises(DataError, match=r"no class 'e'; there are a, b, c, d"):
        listing(root, classes=["a", "e"])


@pytest.mark.parametrize("form", ["$DXAI_TEST_DATA/raw", "${DXAI_TEST_DATA}/raw", "~/raw"])
def test_source_is_expanded(tree: Tree, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    root = tree(SMALL)
    monkeypatch.setenv("DXAI_TEST_DATA", str(root.parent))
    monkeypatch.setenv("HOME", str(root.parent))
    assert listing(form).total == 13


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
        (two_names, "raw: Training and train mean the same"),
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
        ({"validaton": 0.1}, "unknown 'validaton'; valid are classes, group, seed, validation"),
        ({"validation": 0.0}, "validation is 0.0"),
        ({"validation": "a"}, "options.validation is 'a'"),
        ({"group": "("}, "is no regular expression"),
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
