"""Small trees that lie as the releases in docs/datasets.md do when they are unpacked."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

Maker = Callable[[Path], None]
RELEASES: dict[str, Maker] = {}
"""Name of the release in the table to the function that writes such a tree into a folder."""


def release(name: str) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        RELEASES[name] = make
        return make

    return register


def image(path: Path, size: int = 8) -> None:
    """Write an image whose pixels are keyed by its path's last parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list("/".join(path.parts[-3:]).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def images(folder: Path, count: int, suffix: str = ".jpg") -> list[str]:
    """Write images named 000001 and so on, and return their names."""
    names = [f"{i + 1:06d}{suffix}" for i in range(count)]
    for name in names:
        image(folder / name)
    return names


def class_folders(root: Path, splits: Iterable[str], classes: Iterable[str], suffix: str) -> None:
    for split in splits:
        for label in classes:
            images(root / split / label, 4, suffix)


@release("AFHQ v1")
def afhq(root: Path) -> None:
    class_folders(root, ("train", "val"), ("cat", "dog", "wild"), ".jpg")


@release("CelebA-HQ as split by StarGAN v2")
def celeba_hq(root: Path) -> None:
    class_folders(root, ("train", "val"), ("female", "male"), ".jpg")


@release("CelebA, aligned images with text files")
def celeba_aligned(root: Path) -> None:
    names = images(root / "Img/img_align_celeba", 12)
    attributes = [f"{name} {1 - 2 * (i % 2)} -1" for i, name in enumerate(names)]
    text = "\n".join([str(len(names)), "Male Young", *attributes, ""])
    (root / "Anno").mkdir()
    (root / "Anno/list_attr_celeba.txt").write_text(text)
    partition = [f"{name} {i // 4}" for i, name in enumerate(names)]
    (root / "Eval").mkdir()
    (root / "Eval/list_eval_partition.txt").write_text("\n".join([*partition, ""]))


BOX = "10 10 40 10 40 30 10 30 small-vehicle 0"


@release("DOTA in one folder")
def dota(root: Path) -> None:
    for i in range(12):
        aerial(root / "images", root / "labelTxt", f"P{i:04d}", [BOX] * (i % 2))


def aerial(images: Path, labels: Path, name: str, boxes: Iterable[str]) -> None:
    """Write an aerial image of one patch, and its label file."""
    image(images / f"{name}.png", 256)
    labels.mkdir(parents=True, exist_ok=True)
    head = ["imagesource:GoogleEarth", "gsd:0.146"]
    (labels / f"{name}.txt").write_text("\n".join([*head, *boxes, ""]))


def volume(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def brain(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a FLAIR volume, and a segmentation of its slices 4 and 5."""
    image = np.zeros((24, 24, 10), np.int16)
    image[4:20, 4:20, 1:9] = np.random.default_rng(seed).integers(100, 200, (16, 16, 8))
    tumour = np.zeros(image.shape, np.uint8)
    tumour[8:14, 8:14, 4:6] = 1
    return image, tumour


@release("BraTS 2017 to 2020")
def brats_2020(root: Path) -> None:
    for i in range(8):
        name = f"BraTS20_Training_{i + 1:03d}"
        for kind, values in zip(("flair", "seg"), brain(i), strict=True):
            volume(root / f"MICCAI_BraTS2020_TrainingData/{name}/{name}_{kind}.nii.gz", values)


@release("BraTS 2023 and 2024")
def brats_2023(root: Path) -> None:
    for i in range(8):
        name = f"BraTS-GLI-{i:05d}-000"
        for kind, values in zip(("t2f", "seg"), brain(i), strict=True):
            volume(root / f"TrainingData/{name}/{name}-{kind}.nii.gz", values)


@release("Fruits-360 2020.05.18")
def fruits(root: Path) -> None:
    classes = [f"Pepper {colour}" for colour in ("Green", "Orange", "Red", "Yellow")]
    class_folders(root, ("Training", "Test"), (*classes, "Banana"), ".jpg")


@release("any photographs, for noise")
def photographs(root: Path) -> None:
    for folder in ("2023", "2024/summer"):
        images(root / folder, 12)


@release("your images in folders")
def folders(root: Path) -> None:
    class_folders(root, ("train", "val", "test"), ("cat", "dog"), ".png")


@release("your images in a CSV file")
def table(root: Path) -> None:
    names = images(root / "pictures", 18, ".png")
    rows = [
        (f"pictures/{name}", ("cat", "dog")[i % 2], ("train", "validation", "test")[i % 3])
        for i, name in enumerate(names)
    ]
    with open(root / "images.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
