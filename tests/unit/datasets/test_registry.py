"""The contract of every layout."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.config.params_file import load_params, read_yaml
from dxai.config.profiles import CATALOGUE as CATALOGUE_FILE
from dxai.config.schema import DatasetParams, Params, PrepareParams
from dxai.config.settings import ParamsError, parse
from dxai.datasets import parallel_reader
from dxai.datasets.base import SPLITS, DataError, Dropped, Layout, Listing, Sample, Unit
from dxai.datasets.images import decode
from dxai.datasets.prepare import prepare
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import Source, open_source
from dxai.datasets.splits import HoldOutOptions
from tests.unit.datasets.conftest import Drawn

ROOT = Path(__file__).parents[3]
CATALOGUE = read_yaml(CATALOGUE_FILE)["datasets"]
SIZE = 32
DRAWN = [name for name, layout in LAYOUTS.items() if layout.render_sample is not None]
only_drawn = pytest.mark.parametrize("dataset", DRAWN, indirect=True)
Read = list[tuple[Unit, list[Sample | Dropped]]]
"""The units of a listing, and what each gives."""


def entry(layout: str) -> str:
    """Return the name of the smallest dataset of the catalogue with a layout."""
    if layout == "textures":
        return "textures-few"
    names = [name for name, found in CATALOGUE.items() if found["layout"] == layout]
    assert names, f"layout {layout}: the catalogue has no dataset of it"
    return names[0]


def lacks(layout: Layout) -> list[str]:
    """List the missing parts of a registered layout."""
    found = []
    if not layout.origin.strip():
        found.append("origin: where its images come from")
    if not layout.licence.strip():
        found.append("licence: on what terms")
    if layout.render_sample is None and layout is not LAYOUTS["textures"]:
        found.append("render_sample: a small sample in its native layout (dxai/datasets/samples/)")
    if layout.render_sample is not None and not (layout.render_sample.__doc__ or "").strip():
        found.append("a docstring of render_sample that says what makes the class")
    if not (layout.find.__doc__ or "").strip():
        found.append("a docstring of find")
    if layout.exact and layout.counts({"fruit": "peppers"}) is None:
        found.append("counts: exact promises them")
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_complete(name: str) -> None:
    layout = LAYOUTS[name]
    assert not lacks(layout), f"layout {name} lacks {'; '.join(lacks(layout))}"
    assert (ROOT / f"dxai/datasets/layouts/{name}.py").exists()
    assert CATALOGUE[entry(name)]["options"], f"{entry(name)}: the catalogue shows every option"


def test_incomplete_layout_is_noticed() -> None:
    def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
        raise NotImplementedError

    found = lacks(Layout(find, None, "", " ", exact=True, options=HoldOutOptions))
    assert [text.split(":")[0] for text in found] == [
        "origin",
        "licence",
        "render_sample",
        "a docstring of find",
        "counts",
    ]


@pytest.fixture(params=LAYOUTS)
def dataset(request: pytest.FixtureRequest, drawn: Drawn) -> DatasetParams:
    """Return a small dataset of each layout, with the catalogue's options."""
    found = parse(DatasetParams, CATALOGUE[entry(request.param)], "made")
    if LAYOUTS[request.param].render_sample is None:
        return found
    return found.replace(source=str(drawn(request.param)))


@pytest.fixture
def params(dataset: DatasetParams) -> Params:
    shards = PrepareParams(image_size=SIZE, shard_mb=1)
    return load_params(ROOT / "params.yaml").replace(datasets={"mine": dataset}, prepare=shards)


@pytest.fixture(scope="session")
def folders() -> dict[str, Path]:
    """Map layouts to datasets as one process prepares them; filled by `prepared`."""
    return {}


@pytest.fixture
def prepared(
    params: Params, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Prepare the small dataset once, by one process; its folder is read-only."""
    layout = params.datasets["mine"].layout
    if layout not in folders:
        folders[layout] = tmp_path_factory.mktemp(f"prepared-{layout}") / "out"
        prepare("mine", params, folders[layout], folders[layout].parent / "work", 1)
    return folders[layout]


def find(dataset: DatasetParams) -> tuple[Listing, Source | None]:
    source = None if LAYOUTS[dataset.layout].render_sample is None else open_source(dataset.source)
    listing = LAYOUTS[dataset.layout].find(source, dataset, PrepareParams(image_size=SIZE))
    return listing, source


def load_of(source: Source | None) -> Callable[..., bytes]:
    return source.load if source is not None else lambda file: b""


@pytest.fixture(scope="session")
def readings() -> dict[str, tuple[Listing, Read]]:
    """Map layouts to the listing of their dataset and what it reads; filled by `reading`."""
    return {}


@pytest.fixture
def reading(
    dataset: DatasetParams, readings: dict[str, tuple[Listing, Read]]
) -> tuple[Listing, Read]:
    """Read the small dataset once: its listing, and the samples of each unit."""
    if dataset.layout not in readings:
        listing, source = find(dataset)
        read = [(unit, [*listing.read(unit, load_of(source))]) for unit in listing.units]
        readings[dataset.layout] = listing, read
    return readings[dataset.layout]


def samples(read: Read) -> list[Sample]:
    return [one for _, found in read for one in found if isinstance(one, Sample)]


def test_listing_keeps_its_word(dataset: DatasetParams, reading: tuple[Listing, Read]) -> None:
    listing, read = reading
    shape = (SIZE, SIZE) if dataset.channels == 1 else (SIZE, SIZE, 3)
    keys = [unit.key for unit in listing.units]
    assert len(set(keys)) == len(keys)
    assert len(set(listing.class_names)) == len(listing.class_names) >= 2
    ids: list[str] = []
    seen: set[tuple[str, str]] = set()
    groups: dict[str, set[str]] = {split: set() for split in SPLITS}
    for unit, results in read:
        for found in results:
            if isinstance(found, Dropped):
                assert found.rule and found.count > 0
                continue
            assert found.id.startswith(unit.key)
            assert found.image.shape == shape and found.image.dtype == np.uint8
            assert found.split == unit.split or (not unit.split and found.split in SPLITS)
            assert found.label == unit.label or not unit.label
            assert found.group and found.source
            if found.mask is not None:
                assert found.mask.shape == (SIZE, SIZE) and found.mask.dtype == np.uint8
            if found.neutral is not None:
                assert found.neutral.shape == shape and found.neutral.dtype == np.uint8
            ids.append(found.id)
            seen.add((found.split, found.label))
            groups[found.split].add(found.group)
    assert len(set(ids)) == len(ids)
    assert seen == {(split, label) for split in SPLITS for label in listing.class_names}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not groups[one] & groups[other]


def test_options_are_filled_in(dataset: DatasetParams) -> None:
    """The manifest names every option; params.yaml shows all of them."""
    listing, _ = find(dataset)
    assert listing.options.items() >= dataset.options.items()
    assert listing.options.keys() == dataset.options.keys()
    assert find(dataset.replace(options={}))[0].options.keys() == listing.options.keys()


@only_drawn
def test_drawn_truth_reaches_the_samples(
    dataset: DatasetParams, reading: tuple[Listing, Read]
) -> None:
    """Some images of every drawn set come with ground truth."""
    read = samples(reading[1])
    masks = [s.mask for s in read if s.mask is not None]
    neutral = [s for s in read if s.neutral is not None]
    assert masks or neutral, f"layout {dataset.layout}: what makes the class is not drawn"
    if masks:
        assert all(mask.any() for mask in masks)
    assert len({s.split for s in read if s.mask is not None or s.neutral is not None}) == 3


def test_listing_can_be_sent_to_another_process(dataset: DatasetParams) -> None:
    listing, source = find(dataset)
    read, units = pickle.loads(pickle.dumps((listing.read, listing.units[:2])))
    for unit, copy in zip(listing.units[:2], units, strict=True):
        assert (unit.key, unit.split, unit.files) == (copy.key, copy.split, copy.files)
        pairs = zip(listing.read(unit, load_of(source)), read(copy, load_of(source)), strict=True)
        for one, other in pairs:
            if hasattr(one, "image"):
                np.testing.assert_array_equal(one.image, other.image)
                assert (one.id, one.split, one.label) == (other.id, other.split, other.label)


def test_unknown_option_is_named_with_the_valid_ones(
    dataset: DatasetParams, params: Params, tmp_path: Path
) -> None:
    wrong = dataset.replace(options=dataset.options | {"sede": 3})
    with pytest.raises(ParamsError, match=r"dataset mine: .*unknown 'sede'; valid are .*\bseed\b"):
        prepare(
            "mine", params.replace(datasets={"mine": wrong}), tmp_path / "out", tmp_path / "work"
        )
    assert not (tmp_path / "out").exists()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_prepared_anew_or_by_two_processes_is_the_same_bytes(
    prepared: Path, params: Params, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_reader, "SERIAL_BYTES", 0)
    monkeypatch.setattr(parallel_reader, "BATCH_UNITS", 5)
    prepare("mine", params, tmp_path / "out", tmp_path / "work", workers)
    first = content(prepared)
    assert {"manifest.json", "card.html", "train-00000.parquet", "test-index.parquet"} <= set(first)
    assert content(tmp_path / "out") == first


def test_prepared_images_are_those_of_the_listing(
    reading: tuple[Listing, Read], prepared: Path
) -> None:
    listing, read = reading
    for split in SPLITS:
        wanted = [sample for sample in samples(read) if sample.split == split]
        found = ShardedDataset(prepared, split)
        assert found.ids == [sample.id for sample in wanted]
        assert found.groups == [sample.group for sample in wanted]
        assert [found.class_names[i] for i in found.labels] == [s.label for s in wanted]
        for i, sample in enumerate(wanted):
            for column in ("image", "mask", "neutral"):
                data, pixels = found.encoded(i, column), getattr(sample, column)
                assert (data is None) == (pixels is None)
                if data is not None:
                    np.testing.assert_array_equal(decode(data), pixels)
    manifest = json.loads((prepared / "manifest.json").read_text())
    dropped = sum(row["images"] for row in manifest["dropped"])
    unread = [one for _, found in read for one in found if isinstance(one, Dropped)]
    assert dropped == sum(one.count for one in (*listing.dropped, *unread))


@only_drawn
@pytest.mark.usefixtures("few")
def test_source_sample_is_the_drawn_folder(
    dataset: DatasetParams,
    prepared: Path,
    params: Params,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is drawn while it is prepared, then removed; it is not a release."""
    capsys.readouterr()
    sample = dataset.replace(source="sample", release="paper")
    manifest = prepare(
        "mine", params.replace(datasets={"mine": sample}), tmp_path / "out", tmp_path / "work", 1
    )
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert manifest["drawn"] is True
    for name in manifest["files"]:
        assert (tmp_path / "out" / name).read_bytes() == (prepared / name).read_bytes()
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert "Table 5" not in capsys.readouterr().out


def test_unknown_dataset_and_layout(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    params = params.replace(datasets={"mine": DatasetParams(layout="zip", source="x")})
    with pytest.raises(ParamsError, match=r"unknown 'yours'; valid are mine"):
        prepare("yours", params, tmp_path / "out", tmp_path / "work")
    message = f"dataset mine: layout: unknown 'zip'; valid are {', '.join(sorted(LAYOUTS))}"
    with pytest.raises(ParamsError, match=re.escape(message)):
        prepare("mine", params, tmp_path / "out", tmp_path / "work")


@pytest.mark.parametrize("layout", DRAWN)
def test_errors_name_the_dataset(layout: str, tmp_path: Path) -> None:
    channels = CATALOGUE[entry(layout)]["channels"]
    other = DatasetParams(layout=layout, source=str(tmp_path / "nothing"), channels=channels)
    params = load_params(ROOT / "params.yaml").replace(datasets={"mine": other})
    with pytest.raises(DataError, match=r"dataset mine: .*nothing: no such folder"):
        prepare("mine", params, tmp_path / "out", tmp_path / "work")


# --------------------------------------------------------------------- a declared release

PAPER = {
    "afhq": (14630, 1500),
    "celeba": (28000, 2000),
    "fruits360": (2478, 826),
    "dota": (172465, 20696),
    "brats": (15000, 1232),
}
"""Training and test images of Table 5; of Fruits-360, the peppers'."""


def test_counts_of_a_declared_release(
    dataset: DatasetParams, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other counts than Table 5's: an error where the paper gives its release, else shown."""
    paper = params.replace(datasets={"mine": dataset.replace(release="paper")})
    args = "mine", paper, tmp_path / "out", tmp_path / "work", 1
    if dataset.layout not in PAPER:
        manifest = prepare(*args)
        assert "Table 5" not in capsys.readouterr().out
        return
    if dataset.layout in ("afhq", "celeba", "fruits360"):
        with pytest.raises(DataError, match="dataset mine: release: paper was declared") as error:
            prepare(*args)
        text = str(error.value)
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    else:
        manifest = prepare(*args)
        text = capsys.readouterr().out
    sums = {split: sum(counts.values()) for split, counts in manifest["counts"].items()}
    training, test = PAPER[dataset.layout]
    assert (
        f"{sums['train'] + sums['validation']} training and {sums['test']} test images; "
        f"Table 5 has {training} and {test}"
    ) in text


@pytest.mark.slow
def test_the_release_itself_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tree with the counts of Fruits-360 2020.05.18, each image one pixel; one less is told."""
    pixel = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), (200, 10, 10)).save(pixel)
    counts = {"Green": (444, 148), "Orange": (702, 234), "Red": (666, 222), "Yellow": (666, 222)}
    for name, numbers in counts.items():
        for split, number in zip(("Training", "Test"), numbers, strict=True):
            folder = tmp_path / "fruits" / split / f"Pepper {name}"
            folder.mkdir(parents=True)
            for i in range(number):
                (folder / f"{i}_100.png").hardlink_to(pixel)
    params = load_params(ROOT / "params.yaml").replace(
        prepare=PrepareParams(image_size=16),
        datasets={
            "mine": DatasetParams(
                layout="fruits360", source=str(tmp_path / "fruits"), release="paper"
            )
        },
    )
    args = "mine", params, tmp_path / "out", tmp_path / "work", 1
    prepare(*args)
    told = "2478 training and 826 test images; Table 5 has 2478 and 826"
    assert told in capsys.readouterr().out
    (tmp_path / "fruits/Training/Pepper Red/7_100.png").unlink()
    with pytest.raises(DataError, match="there are 2477 training and 826 test images"):
        prepare(*args)
