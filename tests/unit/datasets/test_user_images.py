from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from dxai.datasets.base import DataError
from dxai.datasets.pictures import picture
from dxai.datasets.user_images import Scaling, find_images, read, with_validation

SIZE = 8


def write(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE + 4, 3), k, np.uint8)).save(folder / name)


def counts(found: Any) -> dict[str, int]:
    splits = [unit.split for unit in found.units]
    return {name: splits.count(name) for name in dict.fromkeys(splits)}


def test_class_folders_and_splits_of_them(tmp_path: Path) -> None:
    names = [f"{label}/{i}.png" for label in ("ant", "bee") for i in range(10)]
    write(tmp_path / "plain", *names)
    (tmp_path / "plain/notes.txt").write_text("mine")
    found = with_validation(find_images(tmp_path / "plain"))
    assert found.class_names == ("ant", "bee")
    assert counts(found) == {"train": 16, "validation": 4}
    assert found.notes == (f"{tmp_path / 'plain'}: 1 other files are not read",)
    assert found.side == SIZE
    write(tmp_path / "split", *(f"{s}/{n}" for s in ("Train", "val", "test") for n in names))
    assert counts(with_validation(find_images(str(tmp_path / "split")))) == {
        "train": 20,
        "test": 20,
        "validation": 20,
    }


def test_a_table_with_and_without_splits(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(20)]
    write(tmp_path, *names)
    table = tmp_path / "list.csv"
    lines = [f"{name},{'bee' if i % 2 else 'ant'}" for i, name in enumerate(names)]
    table.write_text("\n".join(["path,label", *lines]))
    assert counts(with_validation(find_images(table))) == {"train": 16, "validation": 4}
    lines = [f"{line},{'test' if i < 4 else 'train'}" for i, line in enumerate(lines)]
    table.write_text("\n".join(["path,label,split", *lines]))
    assert counts(find_images(table)) == {"test": 4, "train": 16}
    table.write_text("path,class\n0.png,ant")
    with pytest.raises(DataError, match=r"no column label.*the header names path, label and"):
        find_images(table)


class Folder:
    """A dataset as torchvision's ImageFolder is."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.classes = str(root), ["bee", "ant"]
        self.samples = [(str(root / n), self.classes.index(n.split("/")[0])) for n in names]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Any:
        raise AssertionError("its files are read, not its transformed images")


def test_a_dataset_of_files_and_its_loader(tmp_path: Path) -> None:
    names = [f"{label}/{i}.png" for label in ("ant", "bee") for i in range(4)]
    write(tmp_path, *names)
    dataset = Folder(tmp_path, names)
    for images in (dataset, DataLoader(dataset, batch_size=2, shuffle=True)):  # type: ignore[arg-type]
        found = find_images(images)
        data, left = read(found, found.split("train"), SIZE, 3, "read")
        assert found.class_names == ("bee", "ant")
        assert data.labels.tolist() == [1] * 4 + [0] * 4
        assert (data.pixels == np.arange(8)[:, None, None, None]).all()
        assert left == 0


MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])


@pytest.mark.parametrize("form", ["uint8", "unit", "signed", "normalised"])
def test_tensors_of_a_loader_become_the_same_pixels(form: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    unit = pixels / 255
    values = {
        "uint8": pixels,
        "unit": unit,
        "signed": 2 * unit - 1,
        "normalised": (unit - MEAN) / STD,
    }[form]
    images = torch.from_numpy(values.transpose(0, 3, 1, 2).copy())
    images = images if form == "uint8" else images.float()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    scaling = Scaling(MEAN.tolist(), STD.tolist())
    for given in (loader, (images, labels), TensorDataset(images, labels)):
        found = find_images(given, ["ant", "bee"], scaling)
        data, _ = read(found, found.split("train"), SIZE, 3, "read")
        assert np.array_equal(data.pixels, pixels)
        assert data.batch([0]).images.shape == (1, 3, SIZE, SIZE)
    if form == "normalised":
        with pytest.raises(DataError, match="give the mean and std with which they are normalised"):
            find_images(loader, ["ant", "bee"])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (SimpleNamespace(), "found SimpleNamespace; expected a folder"),
        ([torch.zeros(3, 8, 8)], "yields Tensor; expected pairs"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(2))], "only one class, '0'"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(3))], "2 images and 3 labels in a batch"),
        ([(torch.zeros(5, 8, 8), 0)], "expected (H, W), (H, W, C) or (C, H, W)"),
        ([("none.png", 0), ("none.png", 1)], "none.png: unreadable image"),
    ],
)
def test_what_is_no_set_of_images(images: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        assert find_images(images).side
    assert expected in str(caught.value)


def test_too_many_images_are_spread_over_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *(f"{label}/{i}.png" for label in ("ant", "bee") for i in range(9)))
    monkeypatch.setattr("dxai.datasets.user_images.MOST_IMAGES", 6)
    found = find_images(tmp_path)
    data, left = read(found, found.split("train"), SIZE, 3, "read")
    assert data.ids == [f"{label}/{i}.png" for label in ("ant", "bee") for i in (0, 4, 8)]
    assert left == 12
    assert len(set(data.digests())) == 6
    assert data.subset([1, 3]).ids == ["ant/4.png", "bee/0.png"]


def test_every_form_of_an_image_is_the_same_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, chw]
    forms += [pixels / 255, chw.float() / 127.5 - 1, chw.double() / 255]
    for form in forms:
        assert np.array_equal(np.asarray(picture(form, 3)), pixels)
    assert picture(pixels, 1).mode == "L"
    assert np.asarray(picture(np.full((4, 4), 9, np.uint8), 3)).tolist() == [[[9] * 3] * 4] * 4
    for wrong, text in [
        (np.full((4, 4), 300.0), "values span"),
        (np.full((4, 4), np.nan), "values span"),
        (np.zeros((4, 4), int), "found int64"),
        (np.zeros((0, 4)), "holds no pixel"),
        ({}, "found dict"),
    ]:
        with pytest.raises(DataError, match=text):
            picture(wrong, 3)
