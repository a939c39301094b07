"""A few images of each class, as the stage `prepare` makes them, with and without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dxai.config.params_file import check
from dxai.config.profiles import load_profile
from dxai.config.schema import Params
from dxai.datasets import first_images as module
from dxai.datasets.base import File
from dxai.datasets.first_images import first_images
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import LocalSource
from dxai.types import Batch
from tests.unit.datasets.conftest import Drawn

SIZE = 16


def params(layout: str, source: Path | str, channels: int = 3, **options: object) -> Params:
    values = load_profile("smoke")
    entry = {"layout": layout, "source": str(source), "channels": channels, "options": options}
    values["datasets"] = {"mine": entry}
    values["ablations"] = {"datasets": [], "classifiers": [], "variants": {}}
    values["prepare"]["image_size"] = SIZE
    return check(values)


@pytest.mark.parametrize(
    ("layout", "channels"),
    [("folder", 3), ("folder", 1), ("dota", 3), ("brats", 1), ("noise", 3), ("textures", 1)],
)
def test_they_are_no_test_images_and_as_prepare_makes_them(
    drawn: Drawn, tmp_path: Path, layout: str, channels: int
) -> None:
    source = "" if layout == "textures" else drawn(layout)
    wanted = params(layout, source, channels)
    raw = first_images("mine", wanted, tmp_path / "out", tmp_path, 3)
    prepare("mine", wanted, tmp_path / "out", tmp_path, workers=1)
    prepared = first_images("mine", wanted, tmp_path / "out", tmp_path, 3)
    splits = [ShardedDataset(tmp_path / "out", split) for split in ("validation", "train")]
    batches = [data.batch(range(len(data))) for data in splits]
    there = {im.numpy().tobytes(): label for batch in batches for im, label in pairs(batch)}
    for images, labels, names in (raw, prepared):
        assert names == splits[0].class_names
        assert images.shape[1:] == (channels, SIZE, SIZE) and images.dtype == torch.float32
        counts = torch.bincount(labels, minlength=len(names))
        every = torch.cat([batch.labels for batch in batches])
        whole = torch.bincount(every, minlength=len(names))
        assert counts.tolist() == whole.clamp(max=3).tolist()
        for image, label in zip(images, labels, strict=True):
            assert there[image.numpy().tobytes()] == label


def pairs(batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(batch.images, batch.labels, strict=True))


@pytest.mark.parametrize("changed", ["image_size", "channels", "options"])
def test_images_prepared_with_other_settings_are_not_taken(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    prepare("mine", params("folder", drawn("folder")), tmp_path / "out", tmp_path, workers=1)
    monkeypatch.setattr(module, "_samples", lambda *_: [])
    wanted = params("folder", drawn("folder"))
    assert len(first_images("mine", wanted, tmp_path / "out", tmp_path)[0])
    if changed == "image_size":
        values = wanted.model_dump() | {"prepare": wanted.prepare.model_dump() | {changed: 20}}
        wanted = Params(**values)
    elif changed == "channels":
        wanted = params("folder", drawn("folder"), channels=1)
    else:
        wanted = params("folder", drawn("folder"), validation=0.3)
    with pytest.raises(ValueError, match="no image"):
        first_images("mine", wanted, tmp_path / "out", tmp_path)


def test_a_source_of_many_files_is_not_read_whole(
    tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree({f"{split}/{name}": 30 for split in ("train", "test") for name in "ab"})
    loaded: list[str] = []
    load = LocalSource.load

    def counted(source: LocalSource, file: File) -> bytes:
        loaded.append(file.name)
        return load(source, file)

    monkeypatch.setattr(LocalSource, "load", counted)
    _, labels, _ = first_images("mine", params("folder", root), tmp_path / "out", tmp_path, 2)
    assert labels.tolist() == [0, 1, 0, 1]
    assert len(loaded) == 4 and all(name.startswith("train/") for name in loaded)
