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


@release("AFHQ v2")
def afhq_v2(root: Path) -> None:
    class_folders(root / "afhq_v2", ("train", "test"), ("cat", "dog", "wild"), ".png")


@release("CelebA-HQ as split by StarGAN v2")
def celeba_hq(root: Path) -> None:
    class_folders(root, ("train", "val"), ("female", "male"), ".jpg")


def faces(count: int) -> list[tuple[str, str]]:
    """Names of images and values of the attribute Male."""
    return [(f"{i + 1:06d}.jpg", "1" if i % 2 else "-1") for i in range(count)]


@release("CelebA, aligned images with text files")
def celeba_aligned(root: Path) -> None:
    found = faces(12)
    images(root / "Img/img_align_celeba", 12)
    attributes = [f"{name} {male} -1" for name, male in found]
    (root / "Anno").mkdir()
    (root / "Anno/list_attr_celeba.txt").write_text("\n".join(["12", "Male Young", *attributes]))
    (root / "Anno/identity_CelebA.txt").write_text("000001.jpg 2880\n")
    partition = [f"{name} {i // 4}" for i, (name, _) in enumerate(found)]
    (root / "Eval").mkdir()
    (root / "Eval/list_eval_partition.txt").write_text("\n".join([*partition, ""]))


@release("CelebA, aligned images with CSV files")
def celeba_csv(root: Path) -> None:
    found = faces(12)
    images(root / "img_align_celeba/img_align_celeba", 12)
    attributes = [f"{name},{male},-1" for name, male in found]
    text = "\n".join(["image_id,Male,Young", *attributes, ""])
    (root / "list_attr_celeba.csv").write_text(text)
    partition = [f"{name},{i // 4}" for i, (name, _) in enumerate(found)]
    text = "\n".join(["image_id,partition", *partition, ""])
    (root / "list_eval_partition.csv").write_text(text)
    (root / "list_bbox_celeba.csv").write_text("image_id,x_1,y_1,width,height\n")


@release("CelebAMask-HQ")
def celebamask_hq(root: Path) -> None:
    for i in range(12):
        image(root / f"CelebA-HQ-img/{i}.jpg")
        image(root / f"CelebAMask-HQ-mask-anno/0/{i:05d}_hair.png")
    attributes = [f"{i}.jpg  {1 - 2 * (i % 2)} -1" for i in range(12)]
    text = "\n".join(["12", "Male Young", *attributes, ""])
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text(text)
    origins = [f"{i} {i} {i + 1:06d}.jpg" for i in range(12)]
    text = "\n".join(["idx orig_idx orig_file", *origins, ""])
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(text)


BOX = "10 10 40 10 40 30 10 30 small-vehicle 0"


@release("DOTA v1.0")
def dota_1(root: Path) -> None:
    for i in range(12):
        split, name = ("train", "val")[i % 3 // 2], f"P{i:04d}"
        labels = root / split / "labelTxt-v1.0"
        aerial(root / split / "images", labels / "labelTxt", name, [BOX] * (i % 2))
        upright = labels / f"{split}set_reclabelTxt"
        aerial(root / split / "images", upright, name, [BOX] * (i % 2))


@release("DOTA v1.0 in parts")
def dota_parts(root: Path) -> None:
    for i in range(12):
        part = root / f"train/part{i % 3 + 1}/images"
        aerial(part, root / "train/labelTxt", f"P{i:04d}", [BOX] * (i % 2))
    image(root / "test/part1/images/P0099.png", 256)
    (root / "test/test_info.json").write_text("{}")


@release("DOTA v1.5 or v2.0 beside v1.0")
def dota_1_and_1_5(root: Path) -> None:
    for i in range(12):
        images, name = root / "train/images/part1", f"P{i:04d}"
        aerial(images, root / "train/labelTxt-v1.0", name, [])
        folder = root / "train/labelTxt-v1.5/DOTA-v1.5_train"
        aerial(images, folder, name, [BOX] * (i % 2))
        aerial(images, Path(f"{folder}_hbb"), name, [BOX] * (i % 2))


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


def case(folder: Path, stem: str, seed: int, ends: Iterable[str]) -> None:
    """Write the volumes of a case, and a file of another sequence that nobody reads."""
    for end, values in zip(ends, brain(seed), strict=True):
        volume(folder / f"{stem}{end}", values)
    (folder / f"{stem}_t1.nii.gz").write_bytes(b"not read")


@release("BraTS 2017 and 2018")
def brats_2018(root: Path) -> None:
    for i in range(8):
        name = f"Brats18_CBICA_AA{i}_1"
        grade = root / "MICCAI_BraTS_2018_Data_Training" / ("HGG", "LGG")[i % 2]
        case(grade / name, name, i, ("_flair.nii.gz", "_seg.nii.gz"))


@release("BraTS 2019")
def brats_2019(root: Path) -> None:
    for i in range(8):
        name = f"BraTS19_TCIA01_13{i}_1"
        grade = root / "MICCAI_BraTS_2019_Data_Training" / ("HGG", "LGG")[i % 2]
        case(grade / name, name, i, ("_flair.nii", "_seg.nii"))


@release("BraTS 2020")
def brats_2020(root: Path) -> None:
    """Write one segmentation under the name that it has in the release, and unlabelled cases."""
    folder = root / "MICCAI_BraTS2020_TrainingData"
    for i in range(8):
        name = f"BraTS20_Training_{i + 348:03d}"
        case(folder / name, name, i, ("_flair.nii", "_seg.nii"))
    last = folder / "BraTS20_Training_355"
    (last / "BraTS20_Training_355_seg.nii").rename(last / "W39_1998.09.19_Segm.nii")
    (folder / "survival_info.csv").write_text("Brats20ID,Age,Survival_days,Extent_of_Resection\n")
    name = "BraTS20_Validation_001"
    volume(root / f"MICCAI_BraTS2020_ValidationData/{name}/{name}_flair.nii", brain(9)[0])


@release("BraTS 2021")
def brats_2021(root: Path) -> None:
    for i in range(8):
        name = f"BraTS2021_{i:05d}"
        case(root / name, name, i, ("_flair.nii.gz", "_seg.nii.gz"))


@release("BraTS 2023 and 2024")
def brats_2023(root: Path) -> None:
    """Write two examinations of each patient."""
    for i in range(16):
        name = f"BraTS-GLI-{i // 2:05d}-{100 + i % 2:03d}"
        case(root / "training_data1_v2" / name, name, i, ("-t2f.nii.gz", "-seg.nii.gz"))


@release("volumes of many patients in one folder")
def volumes(root: Path) -> None:
    for i in range(16):
        case(root, f"sub-{i // 2:02d}_ses-{i % 2}", i, ("_FLAIR.nii.gz", "_seg.nii.gz"))


@release("Fruits-360 2020.05.18")
def fruits(root: Path) -> None:
    classes = [f"Pepper {colour}" for colour in ("Green", "Orange", "Red", "Yellow")]
    class_folders(root, ("Training", "Test"), (*classes, "Banana"), ".jpg")


@release("Fruits-360 100x100, whose classes are numbered")
def fruits_100(root: Path) -> None:
    root = root / "fruits-360_100x100/fruits-360"
    classes = [f"Pepper {kind}" for kind in ("Green 1", "Orange 1", "Red 1", "Red 2", "Yellow 1")]
    class_folders(root, ("Training", "Test"), (*classes, "Banana 1"), ".jpg")
    (root / "README.md").write_text("Fruits-360")


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
