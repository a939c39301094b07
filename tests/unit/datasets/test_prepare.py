"""What the step from raw images to shards tells beside the images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dxai.config.params_file import load_params
from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import DataError
from dxai.datasets.prepare import prepare

ROOT = Path(__file__).parents[3]
COUNTS = {f"{split}/{label}": 3 for split in ("train", "val", "test") for label in "ab"}
Tree = Callable[..., Path]


def run(root: Path, duplicates: str = "report", **options: str) -> None:
    params = load_params(ROOT / "params.yaml").replace(
        datasets={"mine": DatasetParams(layout="folder", source=str(root), options=options)},
        prepare=PrepareParams(image_size=8, duplicates=duplicates),
    )
    prepare("mine", params, root.parent / "out", root.parent / "work", 1)


def test_what_is_left_out_skipped_or_there_twice_is_printed(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(COUNTS)
    (root / "train/a/notes.txt").write_text("notes")
    (root / "truth/mask/train/a").mkdir(parents=True)
    shutil.copy(root / "train/a/000.png", root / "truth/mask/train/a/nobody.png")
    (root / ".DS_Store").write_bytes(b"")
    shutil.copy(root / "train/a/000.png", root / "train/b/same.png")
    shutil.copy(root / "train/a/001.png", root / "test/a/same.png")
    run(root)
    told = capsys.readouterr().out
    for line in (
        "left out 1 (no image by its suffix, first train/a/notes.txt) train a\n",
        "left out 1 (ground truth of no image; expected is truth/mask/",
        "hidden files or folders are skipped: 1, first .DS_Store\n",
        "files in two splits: 1, first test/a/same.png = train/a/001.png\n",
        "files under two classes: 1, first train/a/000.png = train/b/same.png\n",
    ):
        assert f"prepare mine: {line}" in told


def test_error_of_a_duplicate_names_both_files(tree: Tree) -> None:
    root = tree(COUNTS)
    shutil.copy(root / "train/a/000.png", root / "train/b/same.png")
    with pytest.raises(DataError, match=r"dataset mine: train/b/same\.png .* train/a/000\.png"):
        run(root, "refuse")
    assert not (root.parent / "out").exists()


def test_a_missing_class_is_told_before_an_image_is_read(tree: Tree) -> None:
    """Every image is damaged, but that is not what the message says."""
    root = tree(COUNTS)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    (root / "images.csv").write_text(
        "path,label,split\n"
        + "".join(f"train/{k}/00{i}.png,{k},train\n" for k in "ab" for i in range(3))
        + "test/a/000.png,a,test\n"
    )
    with pytest.raises(DataError, match="class 'b' has no image"):
        run(root, table="images.csv")
