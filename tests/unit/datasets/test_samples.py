"""The small sets that layouts draw: repeatable, their truth where it is said to be, learnable."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from dxai.config.params_file import load_params, read_yaml
from dxai.config.profiles import CATALOGUE, select_profile
from dxai.datasets.prepare import prepare
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.samples import afhq, celeba, dota
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.classifiers import build_network
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import initial_seed, score, train_classifier
from dxai.training.events import EventSink
from dxai.training.run import TrainingRun
from tests.unit.datasets.conftest import Drawn

ROOT = Path(__file__).parents[3]
DRAWN = sorted(name for name, layout in LAYOUTS.items() if layout.render_sample is not None)
SAMPLES = [
    n for n, found in read_yaml(CATALOGUE)["datasets"].items() if found["source"] == "sample"
]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_alone_decides(name: str, tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("again", 0), ("other", 1)):
        LAYOUTS[name].render_sample(tmp_path / folder, {}, seed=seed)
    one, other = content(tmp_path / "one"), content(tmp_path / "other")
    assert content(tmp_path / "again") == one
    assert other.keys() == one.keys()
    pictures = [path for path in one if path.endswith((".png", ".jpg", "_flair.nii.gz"))]
    assert pictures
    assert not [path for path in pictures if other[path] == one[path]]
    for path, data in one.items():
        if path.endswith(".gz"):  # of two files a second apart the header would differ
            assert data[4:8] == b"\0" * 4


@pytest.mark.parametrize(
    ("name", "kind"),
    [("afhq", "mask"), ("celeba", "mask"), ("folder", "mask"), ("fruits360", "neutral")],
)
def test_truth_lies_under_the_path_of_its_image(drawn: Drawn, name: str, kind: str) -> None:
    root = drawn(name)
    paths = [path.relative_to(root) for path in root.rglob("*") if path.suffix in (".jpg", ".png")]
    pictures = [path for path in paths if path.parts[0] != "truth"]
    truth = {path for path in paths if path.parts[0] == "truth"}
    assert truth == {Path("truth") / kind / path.with_suffix(".png") for path in pictures}
    for path in pictures:
        with (
            Image.open(root / path) as image,
            Image.open(root / "truth" / kind / path.with_suffix(".png")) as known,
        ):
            assert known.size == image.size
            assert known.mode == ("L" if kind == "mask" else image.mode)
            if kind == "mask":
                share = np.asarray(known).mean() / 255
                assert 0.005 < share < 0.5


def blocks(pixels: np.ndarray) -> np.ndarray:
    """Mark the whole 8 x 8 blocks, those of JPEG, that contain a true pixel."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, -height % 8), (0, -width % 8)))
    rows, columns = (n // 8 for n in padded.shape)
    some = padded.reshape(rows, 8, columns, 8).any((1, 3))
    return some.repeat(8, 0).repeat(8, 1)[:height, :width]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_a_fruits_class_is_a_colour_added_to_it_alone(drawn: Drawn) -> None:
    """Nothing beside the fruit differs from the neutral image; on it, one colour a class does."""
    root = drawn("fruits360")
    means: dict[str, list[np.ndarray]] = {}
    for path in sorted(root.glob("T*/*/*.jpg")):
        image = pixels_of(path)
        known = root / "truth/neutral" / path.relative_to(root).with_suffix(".png")
        neutral = pixels_of(known)
        fruit = (neutral < 255).any(-1)
        assert 0.2 < fruit.mean() < 0.8
        # A block of JPEG is changed as a whole.
        assert (image == neutral)[~blocks(fruit)].all()
        inner = ~blocks(~fruit)
        means.setdefault(path.parent.name, []).append((image - neutral)[inner].mean(0))
    assert len(means) == 4
    colours = {name: np.mean(rows, 0) for name, rows in means.items()}
    for name, rows in means.items():
        assert np.std(rows, 0).max() < 6  # the stalk, and what is clipped at white
        others = [colours[other] for other in colours if other != name]
        assert min(abs(colours[name] - other).max() for other in others) > 30


@pytest.mark.parametrize(("one", "other"), [("cat", "dog"), ("dog", "wild"), ("wild", "cat")])
def test_animals_of_the_same_draw_differ_in_their_masks_alone(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afhq, "COUNTS", {"train": 6})
    found = []
    for label in (one, other):
        monkeypatch.setattr(afhq, "CLASSES", (label,))
        afhq.render_sample(tmp_path)
        found.append(
            [
                (
                    pixels_of(tmp_path / f"train/{label}/{label}_{i:05d}.jpg"),
                    pixels_of(tmp_path / f"truth/mask/train/{label}/{label}_{i:05d}.png"),
                )
                for i in range(1, 7)
            ]
        )
    for (image, mask), (second, second_mask) in zip(*found, strict=True):
        own = blocks((mask > 0) | (second_mask > 0))
        assert (image == second)[~own].all()
        strong = (mask > 200) ^ (second_mask > 200)
        assert abs(image - second)[strong].max(-1).mean() > 30


def test_faces_of_the_same_draw_differ_in_their_masks_alone() -> None:
    for seed in range(6):
        (male, beard, has), (female, hair, lacks) = (
            celeba.face(np.random.default_rng(seed), male) for male in (True, False)
        )
        own = (beard > 0) | (hair > 0)
        np.testing.assert_allclose(male[~own], female[~own], atol=1e-6)
        assert abs(male - female)[(beard > 0.5) | (hair > 0.5)].max(-1).mean() > 0.1
        assert ("Male" in has, "Male" in lacks) == (True, False)
        assert ("No_Beard" in has, "No_Beard" in lacks) == (False, True)


def test_lists_of_celeba_say_what_was_drawn(drawn: Drawn) -> None:
    root = drawn("celeba")
    count, names, *rows = (root / "list_attr_celeba.txt").read_text().splitlines()
    assert len(names.split()) == 40  # as in the original release
    assert int(count) == len(rows) == len(list((root / "img_align_celeba").iterdir()))
    males = sum(row.split()[1 + names.split().index("Male")] == "1" for row in rows)
    assert abs(males - len(rows) / 2) < 5 * np.sqrt(len(rows)) / 2
    for row in rows:
        assert len(row.split()) == 41 and set(row.split()[1:]) == {"-1", "1"}


def test_cars_of_dota_are_their_boxes(drawn: Drawn) -> None:
    """Their area is length times width (the shoelace formula), within the rounding to 0.1 px."""
    root = drawn("dota")
    cars = 0
    for path in sorted((root / "labelTxt").iterdir()):
        for line in path.read_text().splitlines()[2:]:
            *numbers, category, difficult = line.split()
            x, y = np.array(numbers, float).reshape(4, 2).T
            area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
            assert difficult in ("0", "1")
            if category == "small-vehicle":
                cars += 1
                np.testing.assert_allclose(area, np.prod(dota.CAR), rtol=0.02)
    assert cars > 8


def test_brains_of_brats(drawn: Drawn) -> None:
    """All four orientations; a tumour of labels 1, 2 and 4, brighter than the rest."""
    root = drawn("brats")
    axes = set()
    for folder in sorted(root.iterdir()):
        image, seg = (
            nibabel.load(folder / f"{folder.name}_{kind}.nii.gz") for kind in ("flair", "seg")
        )
        np.testing.assert_array_equal(image.affine, seg.affine)
        axes.add("".join(nibabel.aff2axcodes(image.affine)))
        values, tumour = np.asarray(image.dataobj), np.asarray(seg.dataobj)
        assert set(np.unique(tumour)) == {0, 1, 2, 4}
        assert (values[tumour > 0] > 0).all()
        assert np.median(values[tumour > 0]) > 1.5 * np.median(values[(values > 0) & (tumour == 0)])
    assert len(axes) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_a_small_classifier_learns_each_sample(name: str, tmp_path: Path) -> None:
    """The class is visible even at 32 px: above 0.9 on test images."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    select_profile(tmp_path / "params.yaml", "quick", datasets=[name], classifiers=["simple"])
    params = load_params(tmp_path / "params.yaml")
    assert params.prepare.image_size == 32
    prepare(name, params, tmp_path / name, tmp_path / "work")
    train, validation, test = (
        ShardedDataset(tmp_path / name, split) for split in ("train", "validation", "test")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(0))
        network = build_network("simple", train.channels, len(train.class_names), 32)
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    settings = params.classifier_for(name)
    train_classifier(network, settings, TrainingRun(train, validation, 0, checkpoint, EventSink()))
    assert score(network, test)[1] > 0.9
