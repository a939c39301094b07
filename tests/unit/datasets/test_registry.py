"""What every layout must keep to, whatever it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dxai.datasets import LAYOUTS, SPLITS, DataError, ShardedDataset, prepare
from dxai.params import DatasetParams, Params, ParamsError, PrepareParams, load_params

ROOT = Path(__file__).parents[3]
Tree = Callable[..., Path]


@pytest.fixture(params=LAYOUTS)
def dataset(request: pytest.FixtureRequest, tree: Tree) -> DatasetParams:
    """A small dataset of each layout; a new layout adds its own here."""
    if request.param == "textures":
        return DatasetParams("textures", "data/textures.md", 1, {"block": 128, "stride": 32})
    if request.param == "folder":
        folders = {f"{split}/{label}": 5 for split in ("train", "test") for label in "abc"}
        return DatasetParams("folder", str(tree(folders, ".jpg", 40)), 3, {"seed": 1})
    raise NotImplementedError(f"give layout {request.param} a small dataset here")


@pytest.fixture
def params(dataset: DatasetParams) -> Params:
    shards = PrepareParams(image_size=32, shard_images=50)
    return replace(load_params(ROOT / "params.yaml"), datasets={"mine": dataset}, prepare=shards)


def test_listing_keeps_its_word(dataset: DatasetParams) -> None:
    listing = LAYOUTS[dataset.layout](dataset, PrepareParams(image_size=32))
    samples = list(listing)
    shape = (32, 32) if dataset.channels == 1 else (32, 32, 3)
    assert len(samples) == listing.total == len({sample.id for sample in samples})
    assert list(listing.class_names) == sorted({sample.label for sample in samples})
    assert {sample.split for sample in samples} == set(SPLITS)
    assert listing.options.items() >= dataset.options.items()
    for sample in samples:
        assert sample.image.shape == shape
        assert sample.image.dtype == np.uint8
        assert sample.group and sample.source
    groups = [{s.group for s in samples if s.split == split} for split in SPLITS]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_unknown_option_is_named_with_the_valid_ones(
    dataset: DatasetParams, params: Params
) -> None:
    wrong = replace(dataset, options=dataset.options | {"sede": 3})
    with pytest.raises(ParamsError, match=r"dataset mine: .*unknown 'sede'; valid are .*\bseed\b"):
        prepare("mine", replace(params, datasets={"mine": wrong}), "never-written")
    assert not Path("never-written").exists()


def test_prepared_twice_is_the_same_bytes(params: Params, tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare("mine", params, tmp_path / name)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_prepared_images_are_those_of_the_layout(params: Params, tmp_path: Path) -> None:
    manifest = prepare("mine", params, tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    listing = LAYOUTS[manifest["layout"]](params.datasets["mine"], params.prepare)
    samples = [sample for sample in listing if sample.split == "test"]
    test = ShardedDataset(tmp_path / "out", "test", verify=True)
    assert test.ids == [sample.id for sample in samples]
    assert [test.class_names[i] for i in test.labels] == [sample.label for sample in samples]
    pixels = (test.batch(range(len(test))).images + 1) * 127.5
    for found, sample in zip(pixels.round().byte().numpy(), samples, strict=True):
        image = sample.image if sample.image.ndim == 3 else sample.image[..., None]
        np.testing.assert_array_equal(found.transpose(1, 2, 0), image)


def test_unknown_dataset_and_layout(params: Params, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown 'yours'; valid are mine"):
        prepare("yours", params, tmp_path / "out")
    other = replace(params.datasets["mine"], layout="zip")
    message = f"dataset mine: layout: unknown 'zip'; valid are {', '.join(sorted(LAYOUTS))}"
    with pytest.raises(ParamsError, match=re.escape(message)):
        prepare("mine", replace(params, datasets={"mine": other}), tmp_path / "out")


def test_errors_name_the_dataset(params: Params, tmp_path: Path) -> None:
    other = DatasetParams("folder", str(tmp_path / "nothing"), 3, {})
    with pytest.raises(DataError, match=r"dataset mine: .*nothing: no such folder"):
        prepare("mine", replace(params, datasets={"mine": other}), tmp_path / "out")
