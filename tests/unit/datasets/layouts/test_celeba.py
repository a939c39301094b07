from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import DataError, Dropped, Listing
from dxai.datasets.layouts.celeba import NOT_LISTED, find
from dxai.datasets.source import open_source
from tests.listings import samples_of

Tree = Callable[..., Path]
NAMES = "Bald Male Young"
MALE = (1, -1, -1, 1, 1, -1, 1, -1)
PARTS = (0, 0, 0, 0, 1, 1, 2, 2)


def listing(root: Path, **options: object) -> Listing:
    dataset = DatasetParams(layout="celeba", source=str(root), channels=3, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=6))


@pytest.fixture
def celeba(tree: Tree) -> Path:
    """The original release in small: 8 faces, class and split as above."""
    root = tree({"img_align_celeba": 8}, ".jpg")
    rows = [f"{i:03d}.jpg {-m:2d} {m:2d}  1\n" for i, m in enumerate(MALE)]
    (root / "list_attr_celeba.txt").write_text(f"8\n{NAMES}\n" + "".join(rows))
    parts = [f"{i:03d}.jpg {part}\n" for i, part in enumerate(PARTS)]
    (root / "list_eval_partition.txt").write_text("".join(parts))
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"


def test_attribute_male_and_partition_decide(celeba: Path) -> None:
    """Male 1 is male; partition 0 is train, 1 validation, 2 test."""
    samples = list(samples_of(listing(celeba), open_source(str(celeba)).load))
    assert len(samples) == 8
    for sample in samples:
        i = int(Path(sample.id).stem)
        assert sample.label == ("male" if MALE[i] == 1 else "female")
        assert sample.split == ("train", "validation", "test")[PARTS[i]]
        with Image.open(celeba / sample.id) as image:
            np.testing.assert_array_equal(sample.image, np.asarray(image))
    assert not listing(celeba).dropped


@pytest.mark.parametrize("column", range(3))
def test_the_attribute_is_found_by_its_name(celeba: Path, column: int) -> None:
    names = ["Bald", "Young"]
    names.insert(column, "Male")
    rows = []
    for i, male in enumerate(MALE):
        values = [-male, -male]
        values.insert(column, male)
        rows.append(f"{i:03d}.jpg " + " ".join(map(str, values)))
    (celeba / ATTRIBUTES).write_text("\n".join(["8", " ".join(names) + " ", *rows, "", ""]))
    labels = {unit.key: unit.label for unit in listing(celeba).units}
    for i, male in enumerate(MALE):
        assert labels[f"img_align_celeba/{i:03d}.jpg"] == ("male" if male == 1 else "female")


def test_lists_and_images_wherever_they_lie(celeba: Path) -> None:
    for name, folder in ((ATTRIBUTES, "Anno"), (PARTITION, "Eval"), ("img_align_celeba", "Img")):
        (celeba / folder).mkdir()
        (celeba / name).rename(celeba / folder / name)
    assert len(listing(celeba).units) == 8


def test_class_folders(tree: Tree) -> None:
    """As StarGAN v2 splits CelebA-HQ: val is the test set, validation is held out of train."""
    found = listing(tree({"train/female": 10, "train/male": 20, "val/female": 2, "val/male": 3}))
    assert found.class_names == ("female", "male")
    splits = {f"{unit.split}/{unit.label}" for unit in found.units}
    assert len(splits) == 6 and len(found.units) == 35
    held = [unit.key for unit in found.units if unit.split == "validation"]
    assert len(held) == 3 and all(key.startswith("train/") for key in held)
    tests = [unit.key for unit in found.units if unit.split == "test"]
    assert len(tests) == 5 and all(key.startswith("val/") for key in tests)


def as_csv(root: Path) -> Path:
    """Turn the tables into those of the CSV release."""
    _, names, *rows = (root / ATTRIBUTES).read_text().splitlines()
    lines = [f"image_id,{','.join(names.split())}", *(",".join(row.split()) for row in rows)]
    (root / "list_attr_celeba.csv").write_text("\r\n".join([*lines, ""]))
    parts = (root / PARTITION).read_text().replace(" ", ",")
    (root / "list_eval_partition.csv").write_text(f"image_id,partition\n{parts}")
    for name in (ATTRIBUTES, PARTITION):
        (root / name).unlink()
    return root


def zeros(root: Path) -> Path:
    """Write 0 instead of -1."""
    text = (root / ATTRIBUTES).read_text()
    (root / ATTRIBUTES).write_text(text.replace("-1", " 0"))
    return root


def marked(root: Path) -> Path:
    """Start the tables with a byte order mark, in capitals."""
    for name in (ATTRIBUTES, PARTITION):
        text = (root / name).read_text()
        (root / name).unlink()
        (root / name.upper()).write_text(text, encoding="utf-8-sig")
    return root


def png(root: Path) -> Path:
    """Store the images losslessly; the tables still name .jpg."""
    for path in (root / "img_align_celeba").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    return root


def nested(root: Path) -> Path:
    (root / "img_align_celeba").rename(root / "inner")
    (root / "img_align_celeba").mkdir()
    (root / "inner").rename(root / "img_align_celeba/img_align_celeba")
    return root


@pytest.mark.parametrize("change", [as_csv, zeros, marked, png, nested])
@pytest.mark.parametrize("other", [None, as_csv])
def test_forms_of_the_release(celeba: Path, change: object, other: object) -> None:
    """All say the same of the same images."""
    wanted = {Path(unit.key).stem: (unit.split, unit.label) for unit in listing(celeba).units}
    assert callable(change)
    change(celeba)
    if callable(other) and change not in (as_csv, marked):
        other(celeba)
    found = listing(celeba)
    assert {Path(unit.key).stem: (unit.split, unit.label) for unit in found.units} == wanted
    assert not found.dropped


# ------------------------------------------------------------------------------ CelebAMask-HQ

HQ, ORIGINS = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture
def hq(tree: Tree) -> Path:
    """40 faces, of which every fourth is male, with a mask of its hair."""
    root = tree({"CelebA-HQ-img": 0, "CelebAMask-HQ-mask-anno/0": 40})
    for i, path in enumerate(sorted((root / "CelebAMask-HQ-mask-anno/0").iterdir())):
        shutil.copy(path, root / f"CelebA-HQ-img/{i}.png")
        path.rename(path.with_name(f"{i:05d}_hair.png"))
    rows = [f"{i}.jpg  {-1} {1 - 2 * (i % 4 > 0)}  1\n" for i in range(40)]
    (root / HQ).write_text(f"40\n{NAMES}\n" + "".join(rows))
    origins = [f"{i}      {100 + i}     {101 + i:06d}.jpg\n" for i in range(40)]
    (root / ORIGINS).write_text("idx     orig_idx     orig_file\n" + "".join(origins))
    return root


def test_celebamask_hq_is_split_at_random(hq: Path) -> None:
    """A tenth of each class is for test, and a tenth of the rest for validation."""
    found = listing(hq, test=0.1, validation=0.1, seed=3)
    counts = Counter((unit.split, unit.label) for unit in found.units)
    assert counts == {
        ("test", "male"): 1,
        ("validation", "male"): 1,
        ("train", "male"): 8,
        ("test", "female"): 3,
        ("validation", "female"): 3,
        ("train", "female"): 24,
    }
    for unit in found.units:
        assert unit.key.startswith("CelebA-HQ-img/")
        assert unit.label == ("female" if int(Path(unit.key).stem) % 4 else "male")
    splits = [{u.key: u.split for u in listing(hq, seed=seed).units} for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_celebamask_hq_is_split_as_celeba_is(hq: Path, suffix: str) -> None:
    parts = [f"{101 + i:06d}.jpg {i % 8 % 3}\n" for i in range(50)]
    text = "".join(parts) if suffix == ".txt" else "a,b\n" + "".join(parts).replace(" ", ",")
    (hq / f"list_eval_partition{suffix}").write_text(text)
    for unit in listing(hq).units:
        split = int(Path(unit.key).stem) % 8 % 3
        assert unit.split == ("train", "validation", "test")[split]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / HQ).unlink(),
            f"there must be list_attr_celeba.txt or .csv, {HQ}, or",
        ),
        (lambda root: (root / ORIGINS).unlink(), f"to split CelebA-HQ by it, add {ORIGINS}"),
        (lambda root: edit(root, ORIGINS, "000105.jpg", ""), f"{ORIGINS}, line 6: two numbers and"),
        (
            lambda root: edit(root, ORIGINS, "000105", "000999"),
            f"{ORIGINS}, line 6: 4: 000999 is not in {PARTITION}",
        ),
        (
            lambda root: edit(root, ORIGINS, "\n4 ", "\n3 "),
            f"{ORIGINS}, line 6: 3 for the second time",
        ),
        (lambda root: edit(root, ORIGINS, "\n4 ", "\n77 "), f"line 7: 4.jpg is not in {ORIGINS}"),
        (
            lambda root: (root / "list_attr_celeba.csv").write_text("image_id,Male\n"),
            f"{HQ} and list_attr_celeba.csv are two tables for the same; keep one",
        ),
    ],
)
def test_faults_of_celebamask_hq(hq: Path, spoil: Callable[[Path], object], message: str) -> None:
    parts = [f"{101 + i:06d}.jpg {i % 3}\n" for i in range(40)]
    (hq / PARTITION).write_text("".join(parts))
    assert len(listing(hq).units) == 40
    spoil(hq)
    with pytest.raises(DataError, match=re.escape(message)):
        listing(hq)


# ------------------------------------------------------------------------------------- faults


def test_images_that_are_not_listed_are_counted(celeba: Path) -> None:
    for name in ("100.jpg", "101.jpg"):
        shutil.copy(celeba / "img_align_celeba/000.jpg", celeba / "img_align_celeba" / name)
    found = listing(celeba)
    assert len(found.units) == 8
    assert found.dropped == (Dropped(NOT_LISTED, 2),)


def test_listed_image_that_is_missing(celeba: Path) -> None:
    (celeba / "img_align_celeba/005.jpg").unlink()
    with pytest.raises(DataError, match=r"list_attr_celeba\.txt, line 8: 005\.jpg does not exist"):
        listing(celeba)


def test_two_images_of_a_name(celeba: Path) -> None:
    shutil.copytree(celeba / "img_align_celeba", celeba / "img_celeba")
    with pytest.raises(
        DataError, match=r"img_align_celeba/000\.jpg and img_celeba/000\.jpg have the same"
    ):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_missing_or_double_list(celeba: Path, name: str) -> None:
    (celeba / "old").mkdir()
    shutil.copy(celeba / name, celeba / "old" / name)
    with pytest.raises(DataError, match=rf"{name} and old/{name} are two tables for the same"):
        listing(celeba)
    (celeba / "old" / name).unlink()
    (celeba / name).unlink()
    wanted = f"there must be {name}" if name == ATTRIBUTES else rf"no {name} \(or \.csv\)"
    with pytest.raises(DataError, match=wanted):
        listing(celeba)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (ATTRIBUTES, "8\n", "", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "eight\n", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "²\n", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "9\n", "8 images, but line 1 says 9"),
        (ATTRIBUTES, "8\n", f"{'9' * 5000}\n", f"8 images, but line 1 says {'9' * 40} .."),
        (ATTRIBUTES, "001.jpg", "\x00.jpg", r"line 4: \x00.jpg does not exist below"),
        (ATTRIBUTES, "Male", "male", "line 2: no attribute Male"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg  0", "line 5: a name and 3 of -1, 1 (or of 0, 1) are"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg", "line 5: a name and 3 of -1, 1 (or of 0, 1) are"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg 1 1", "line 5: a name and 3 of -1, 1 (or of 0, 1) are"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg,1", "line 5: a name and 3 of -1, 1 (or of 0, 1) are"),
        (ATTRIBUTES, "002.jpg", "001.jpg", "line 5: 001.jpg for the second time"),
        (ATTRIBUTES, "002.jpg", "102.jpg", "line 5: 102.jpg does not exist below"),
        (PARTITION, "002.jpg 0", "002.jpg 3", "line 3: a name and 0, 1 or 2 are"),
        (PARTITION, "002.jpg 0", "002.jpg", "line 3: a name and 0, 1 or 2 are"),
        (PARTITION, "002.jpg 0", "002.jpg 0 0", "line 3: a name and 0, 1 or 2 are"),
        (PARTITION, "002.jpg 0", "002.jpg train", "line 3: a name and 0, 1 or 2 are"),
        (PARTITION, "002.jpg 0\n", "001.jpg 2\n", "line 3: 001.jpg for the second time"),
        (PARTITION, "002.jpg 0\n", "", f"{ATTRIBUTES}, line 5: 002.jpg is not in {PARTITION}"),
        (
            PARTITION,
            "007.jpg 2\n",
            "007.jpg 2\n008.jpg 2\n",
            f"line 9: 008.jpg is not in {ATTRIBUTES}",
        ),
    ],
)
def test_malformed_lists(celeba: Path, name: str, old: str, new: str, message: str) -> None:
    edit(celeba, name, old, new)
    where = f"{name}, " if message.startswith("line") else ""
    with pytest.raises(DataError, match=re.escape(where + message)):
        listing(celeba)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("attr", "Male", "male", "line 1: no attribute Male among 'Bald male Young'"),
        ("attr", "image_id,Bald,Male,Young", "", "line 2: no attribute Male among"),
        ("attr", "002.jpg,1", "002.jpg,2", "line 4: a name and 3 of -1, 1 (or of 0, 1) are expe"),
        ("attr", "002.jpg,1", '002.jpg,"1', "line 9: unexpected end of data"),
        ("attr", "002.jpg", "001.jpg", "line 4: 001.jpg for the second time, as in "),
        ("eval_partition", "002.jpg,0", "002.jpg,5", "line 4: a name and 0, 1 or 2 are expected"),
        ("eval_partition", "002.jpg,0", "2,002.jpg,0", "line 4: a name and 0, 1 or 2 are expect"),
    ],
)
def test_malformed_csv_tables(celeba: Path, name: str, old: str, new: str, message: str) -> None:
    as_csv(celeba)
    (path,) = celeba.glob(f"list_{name}*.csv")
    edit(celeba, path.name, old, new)
    with pytest.raises(DataError, match=re.escape(f"{celeba}/{path.name}, {message}")):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_list_that_is_not_text(celeba: Path, name: str) -> None:
    (celeba / name).write_bytes(b"\xff\xfe8\x00")
    with pytest.raises(DataError, match=rf"{name}: not UTF-8 text"):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_empty_list(celeba: Path, name: str) -> None:
    (celeba / name).write_bytes(b"")
    with pytest.raises(DataError, match=name):
        listing(celeba)
