"""Boxes, patches and their classes, against areas known otherwise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing, Sample
from dxai.datasets.layouts.dota import (
    LAYOUT,
    OUTSIDE,
    classify,
    coverage,
    draw_mask,
    find,
    patch_grid,
)
from dxai.datasets.layouts.dota_labels import Boxes, pair, parse_labels
from dxai.datasets.leftovers import find_all
from dxai.datasets.source import open_source
from tests.listings import samples_of

HEAD = "imagesource:GoogleEarth\ngsd:0.146\n"


def listing(root: Path, size: int = 16, channels: int = 3, **options: object) -> Listing:
    dataset = DatasetParams(layout="dota", source=str(root), channels=channels, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=size))


def read(root: Path, size: int = 16, **options: object) -> tuple[list[Sample], list[Dropped]]:
    found, load = listing(root, size, **options), open_source(str(root)).load
    everything = [one for unit in found.units for one in found.read(unit, load)]
    samples = [one for one in everything if isinstance(one, Sample)]
    return samples, [one for one in everything if isinstance(one, Dropped)]


def upright(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def rotated(x: float, y: float, length: float, width: float, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2)
    return half @ turn.T + (x, y)


def line(corners: object, category: str = "small-vehicle", difficult: int | None = 0) -> str:
    numbers = " ".join(f"{value:g}" for value in np.asarray(corners).ravel())
    return f"{numbers} {category}" + ("" if difficult is None else f" {difficult}")


# ------------------------------------------------------------------------------- label files


def test_labels_of_the_release() -> None:
    """Two headers, integers or decimals, with or without the last column, an empty line."""
    text = HEAD + (
        "2753 2408 2861 2385 2888 2468 2805 2502 plane 0\n"
        "3.0 1.5 5.0 1.5 5.0 2.5 3.0 2.5 small-vehicle 1\n"
        "\n"
        "-3.5 0 4 0 4 9 -3.5 9 large-vehicle\n"
        "1e1 0 2e1 0 2e1 5 1e1 5 small-vehicle 0\r\n"
    )
    boxes = parse_labels(text, "P1.txt")
    np.testing.assert_array_equal(
        boxes.corners,
        [
            [[2753, 2408], [2861, 2385], [2888, 2468], [2805, 2502]],
            upright(3, 1.5, 5, 2.5),
            upright(-3.5, 0, 4, 9),
            upright(10, 0, 20, 5),
        ],
    )
    assert boxes.corners.dtype == np.float64
    assert boxes.is_car.tolist() == [False, True, False, True]
    assert boxes.is_vehicle.tolist() == [False, True, True, True]
    assert parse_labels(text, "P1.txt", difficult=False).is_car.tolist() == [False] * 3 + [True]


@pytest.mark.parametrize("text", ["", HEAD, "\n \n", HEAD.replace("\n", "\r\n")])
def test_label_file_without_boxes(text: str) -> None:
    boxes = parse_labels(text, "P1.txt")
    assert boxes.corners.shape == (0, 4, 2)
    assert boxes.is_car.shape == boxes.is_vehicle.shape == (0,)


@pytest.mark.parametrize(
    "bad",
    [
        "1 2 3 4 5 6 7 8",
        "1 2 3 4 5 6 7 small-vehicle 0",
        "1 2 3 4 5 6 7 8 small-vehicle 0 0",
        "1 2 3 4 5 6 7 x small-vehicle 0",
        "1 2 3 4 5 6 7 nan small-vehicle 0",
        "1 2 3 4 5 6 7 inf small-vehicle 0",
        "1 2 3 4 5 6 7 1e300 small-vehicle 0",
        "1 2 3 4 5 6 7 8 small-vehicle easy",
        "1,2,3,4,5,6,7,8,small-vehicle,0",
        "1 2 3 4 5 6 7 8 0",
        "1 2 3 4 5 6 7 8 nan 0",
        "small-vehicle 1 2 3 4 5 6 7 8",
        "1 2 3 4 5 6 7 8 a rusty car 0",
        "1 2 3 4 5 6 7 8 9 10",
        "acquisition dates:2017-01-01",
    ],
)
def test_malformed_line_is_named(bad: str) -> None:
    text = HEAD + line(upright(0, 0, 2, 2)) + f"\n{bad}\n" + line(upright(0, 0, 3, 3))
    with pytest.raises(DataError, match=r"some/P1\.txt, line 4: .*" + re.escape(repr(bad)[:80])):
        parse_labels(text, "some/P1.txt")


@pytest.mark.parametrize(
    "word", ["Small_Vehicle", "small vehicle", "SMALL-VEHICLE", "small__vehicle"]
)
@pytest.mark.parametrize("difficult", [None, 0, 1])
def test_categories_in_any_spelling(word: str, difficult: int | None) -> None:
    boxes = boxes_of(line(upright(0, 0, 2, 2), word, difficult), difficult=False)
    assert boxes.is_car.tolist() == [not difficult] and boxes.is_vehicle.tolist() == [True]
    assert not boxes.unknown


def test_unknown_categories_are_kept() -> None:
    lines = [line(upright(0, 0, 2, 2), word) for word in ("Car", "plane", "Tennis_Court", "car")]
    assert boxes_of(*lines).unknown == ("car", "car")


# ------------------------------------------------------------------------ images and their labels


def test_labels_of_every_release_as_unpacked() -> None:
    """Parts of images, label folders of either depth, images of the test set, upright boxes."""
    names = [
        "train/images/part1/images/P0.png",
        "train/part2/P1.png",
        "train/labelTxt-v1.0/labelTxt/P0.txt",
        "train/labelTxt-v1.0/trainset_reclabelTxt/P0.txt",
        "train/labelTxt-v1.0/labelTxt/P1.txt",
        "train/labelTxt-v1.0/labelTxt/P9.txt",
        "val/images/P2.png",
        "val/labelTxt-v1.5/DOTA-v1.5_val/P2.txt",
        "val/labelTxt-v1.5/DOTA-v1.5_val_hbb/P2.txt",
        "test/images/part1/P3.png",
        "test/test_info.json",
        "train/meta/P0.txt",
        "readme.txt",
        "truth/mask/P0.png",
    ]
    pairs, dropped = pair(names, None, "dota")
    assert pairs == [
        ("train/images/part1/images/P0.png", "train/labelTxt-v1.0/labelTxt/P0.txt"),
        ("train/part2/P1.png", "train/labelTxt-v1.0/labelTxt/P1.txt"),
        ("val/images/P2.png", "val/labelTxt-v1.5/DOTA-v1.5_val/P2.txt"),
    ]
    assert {one.rule: one.files for one in dropped} == {
        "upright boxes, beside the rotated ones": (names[3], names[8]),
        "an image without labels": ("test/images/part1/P3.png",),
        "labels without an image": ("train/labelTxt-v1.0/labelTxt/P9.txt",),
        "an image's date and source, in meta/": ("train/meta/P0.txt",),
    }


TWO = [f"train/images/P{i}.png" for i in range(3)]
TWO += [f"train/labelTxt-v1.{v}/labelTxt/P{i}.txt" for v in (0, 5) for i in range(3)]


def test_two_label_files_of_an_image_are_named_until_a_folder_is_chosen() -> None:
    message = (
        "dota/train/images/P0.png has two label files, train/labelTxt-v1.0/labelTxt/P0.txt and "
        "train/labelTxt-v1.5/labelTxt/P0.txt; set options.labels to the folder to use, "
        "labelTxt-v1.0 or labelTxt-v1.5"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        pair(TWO, None, "dota")
    pairs, dropped = pair(TWO, "labelTxt-v1.5", "dota")
    assert [text for _, text in pairs] == TWO[6:]
    assert dropped == [Dropped("labels outside labelTxt-v1.5", 3)]
    with pytest.raises(
        DataError, match=r"0 images with labels .* 6 files \(labels outside labelTxt-v2"
    ):
        pair(TWO, "labelTxt-v2.0", "dota")


def test_equal_names_in_several_folders_go_with_the_nearest_labels() -> None:
    """A label file belongs to one image: that of its own folder, not one that has none."""
    names = [f"{split}/images/{i}.png" for split in ("a", "b", "test") for i in range(2)]
    names += [f"{split}/labelTxt/{i}.txt" for split in ("a", "b") for i in range(2)]
    pairs, (dropped,) = pair(names, None, "dota")
    assert len(pairs) == 4
    assert all(image.split("/")[0] == text.split("/")[0] for image, text in pairs)
    assert dropped.files == ("test/images/0.png", "test/images/1.png")


def test_two_images_of_a_label_file_are_named() -> None:
    with pytest.raises(
        DataError, match=r"images/1\.jpg and images/1\.png have the same label file"
    ):
        pair(["images/1.jpg", "images/1.png", "labelTxt/1.txt"], None, "dota")


# --------------------------------------------------------------------------- covered shares


def test_coverage_of_upright_boxes() -> None:
    """Products of lengths."""
    corners = np.array([upright(0, 0, 10, 4), upright(-5, -5, 15, 15), upright(30, 30, 31, 31)])
    patches = np.array([[0, 0, 10, 10], [7, 1, 17, 11], [10, 0, 20, 10], [-8, -8, 2, 2]])
    expected = [
        [1, 3 * 3 / 40, 0, 2 * 2 / 40],
        [100 / 400, 8 * 10 / 400, 5 * 10 / 400, 7 * 7 / 400],
        [0, 0, 0, 0],
    ]
    np.testing.assert_allclose(coverage(corners, patches), expected, atol=1e-12)


def test_coverage_of_a_diamond() -> None:
    """A square on its corner, cut through its middle and through a quarter of its height."""
    diamond = np.array([[[0, -4], [4, 0], [0, 4], [-4, 0]]])
    patches = np.array([[0, -9, 9, 9], [0, 0, 9, 9], [-9, 2, 9, 9], [-9, -9, 9, 9]])
    np.testing.assert_allclose(coverage(diamond, patches), [[1 / 2, 1 / 4, 1 / 8, 1]], atol=1e-12)


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (0, 1, 3, 2), (3, 0, 2, 1), (3, 2, 1, 0)])
def test_corners_in_crossed_order_mean_the_same_box(order: tuple[int, ...]) -> None:
    corners = rotated(6, 5, 8, 4, 0.4)[None]
    patches = np.array([[0, 0, 6, 10], [5, 2, 9, 8]])
    found = coverage(corners[:, list(order)], patches)
    np.testing.assert_allclose(found, coverage(corners, patches), atol=1e-12)
    np.testing.assert_allclose(found[0, 0], 0.5, atol=1e-12)


@pytest.mark.parametrize(
    ("corners", "shares"),
    [
        ([[3, 3]] * 4, [1, 0]),
        ([[13, 3]] * 4, [0, 1]),
        ([[2, 3], [4, 3], [4, 3], [2, 3]], [1, 0]),
        ([[30, 30]] * 4, [0, 0]),
    ],
)
def test_box_without_area_is_where_it_lies(corners: object, shares: list[float]) -> None:
    patches = np.array([[0, 0, 10, 10], [10, 0, 20, 10]])
    np.testing.assert_array_equal(coverage(np.array([corners], float), patches), [shares])


def test_coverage_of_nothing() -> None:
    patches = np.array([[0, 0, 10, 10]])
    assert coverage(np.zeros((0, 4, 2)), patches).shape == (0, 1)
    assert coverage(np.array([upright(0, 0, 1, 1)]), np.zeros((0, 4))).shape == (1, 0)


FINE = 24
"""Points a pixel, each way, at which the oracle looks."""

box_params = st.tuples(
    st.floats(-4, 24), st.floats(-4, 24), st.floats(2, 12), st.floats(2, 12), st.floats(0, 6.3)
)


def rasterised(corners: np.ndarray, patch: tuple[int, int, int, int]) -> float:
    """Share of the points of a box, on a fine grid, that lie in a patch.

    A point is inside a convex polygon if it lies on the same side of all its edges.
    """
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    xs, ys = (np.arange(a, b, 1 / FINE) + 0.5 / FINE for a, b in zip(low, high, strict=True))
    x, y = np.meshgrid(xs, ys)
    ends = np.roll(corners, -1, axis=0)
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        for (x0, y0), (x1, y1) in zip(corners, ends, strict=True)
    ]
    inside = (np.stack(sides) > 0).all(0)
    left, top, right, bottom = patch
    held = inside & (x > left) & (x < right) & (y > top) & (y < bottom)
    return float(held.sum() / inside.sum())


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(box_params, min_size=1, max_size=4),
    patches=st.lists(
        st.tuples(st.integers(-6, 18), st.integers(-6, 18), st.integers(1, 16)),
        min_size=1,
        max_size=4,
    ),
)
def test_coverage_of_rotated_boxes(
    boxes: list[tuple[float, ...]], patches: list[tuple[int, int, int]]
) -> None:
    corners = np.stack([rotated(*box) for box in boxes])
    windows = [(left, top, left + side, top + side) for left, top, side in patches]
    found = coverage(corners, np.array(windows))
    assert ((found >= 0) & (found <= 1)).all()
    for row, box in zip(found, corners, strict=True):
        # What the grid gets wrong lies along the outline: about its length over FINE.
        expected = [rasterised(box, window) for window in windows]
        np.testing.assert_allclose(row, expected, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(box=box_params, cut=st.integers(1, 19))
def test_shares_of_a_partition_add_up(box: tuple[float, ...], cut: int) -> None:
    patches = np.array([[-30, -30, cut, 50], [cut, -30, 50, cut], [cut, cut, 50, 50]], dtype=float)
    np.testing.assert_allclose(coverage(rotated(*box)[None], patches).sum(), 1, atol=1e-9)


# ---------------------------------------------------------------------------------- classes


def boxes_of(*lines: str, difficult: bool = True) -> Boxes:
    return parse_labels("\n".join(lines), "made", difficult)


PATCH = np.array([[0, 0, 100, 100]])


@pytest.mark.parametrize(
    ("inside", "kind"), [(100.0, 0), (70.0, 0), (69.9, -1), (50.0, -1), (0.1, -1), (0.0, 1)]
)
@pytest.mark.parametrize("shift", [0.0, 0.1, 33.3])
def test_seventy_percent_of_a_car(inside: float, kind: int, shift: float) -> None:
    """A car 100 px long, its front `inside` px into the patch, at decimal coordinates."""
    car = line(upright(inside - 100, 10 + shift, inside, 13 + shift))
    assert classify(boxes_of(car), PATCH, 0.7).tolist() == [kind]
    across = line(upright(10 + shift, inside - 100, 13 + shift, inside))
    assert classify(boxes_of(across), PATCH, 0.7).tolist() == [kind]


@pytest.mark.parametrize("top", [28.9, 29.4, 29.9, 30.4, 30.9])
def test_exactly_seventy_percent_is_not_lost_to_rounding(top: float) -> None:
    """Areas of decimal coordinates: 8.75 of 12.5, which floats make a little less."""
    corners = upright(-3.75, top, 8.75, round(top + 3.3, 1))
    assert coverage(np.array([corners]), PATCH)[0, 0] < 0.7
    assert classify(boxes_of(line(corners)), PATCH, 0.7).tolist() == [0]


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([], 1),
        ([line(upright(10, 10, 30, 20), "plane")], 1),
        ([line(upright(10, 10, 30, 20), "large-vehicle")], -1),
        ([line(upright(-19, 10, 1, 20), "large-vehicle")], -1),
        ([line(upright(-20, 10, 0, 20), "large-vehicle")], 1),
        ([line(upright(100, 10, 120, 20))], 1),
        ([line(upright(100, 100, 120, 120))], 1),
        ([line(upright(10, 10, 30, 20)), line(upright(50, 50, 90, 60), "large-vehicle")], 0),
        ([line(upright(10, 10, 30, 20)), line(upright(-15, 50, 5, 60))], 0),
        ([line(upright(-10, 10, 10, 20)), line(upright(-10, 50, 10, 60))], -1),
        ([line([[5, 5]] * 4)], 0),
    ],
    ids=[
        "empty",
        "other category",
        "truck",
        "a part of a truck",
        "truck touching an edge",
        "car touching an edge",
        "car touching a corner",
        "car and truck",
        "whole car and a part",
        "two halves are no car",
        "car without area",
    ],
)
def test_class_of_a_patch(lines: list[str], kind: int) -> None:
    assert classify(boxes_of(*lines), PATCH, 0.7).tolist() == [kind]


def test_difficult_car_is_never_none() -> None:
    car = line(upright(10, 10, 30, 20), difficult=1)
    assert classify(boxes_of(car), PATCH, 0.7).tolist() == [0]
    assert classify(boxes_of(car, difficult=False), PATCH, 0.7).tolist() == [-1]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-40, 130), st.floats(-40, 130), st.floats(5, 60), st.floats(5, 60), st.floats(0, 6.3)
)
def test_vehicle_that_cannot_reach_a_patch_leaves_it_none(
    x: float, y: float, length: float, width: float, angle: float
) -> None:
    """Its centre outside by more than half its diagonal; with its centre inside it is there."""
    corners = np.array([rotated(x, y, length, width, angle)])
    boxes = Boxes(corners, np.array([True]), np.array([True]))
    (kind,) = classify(boxes, PATCH, 0.7)
    outside = np.hypot(*(np.maximum(np.maximum(-v, v - 100), 0) for v in (x, y)))
    if outside > np.hypot(length, width) / 2:
        assert kind == 1
    elif outside == 0:
        assert kind in (0, -1)


# ------------------------------------------------------------------------------------- grid


@pytest.mark.parametrize(
    ("width", "height", "patch", "stride", "lefts", "tops"),
    [
        (768, 512, 256, 256, [0, 256, 512], [0, 256]),
        (767, 511, 256, 256, [0, 256], [0]),
        (256, 256, 256, 256, [0], [0]),
        (300, 256, 256, 20, [0, 20, 40], [0]),
        (512, 300, 256, 128, [0, 128, 256], [0]),
        (1000, 300, 256, 500, [0, 500], [0]),
        (255, 900, 256, 256, [], [0, 256, 512]),
    ],
)
def test_patch_grid(
    width: int, height: int, patch: int, stride: int, lefts: list[int], tops: list[int]
) -> None:
    expected = {(x, y, x + patch, y + patch) for y in tops for x in lefts}
    found = patch_grid(width, height, patch, stride)
    assert found.shape == (len(expected), 4)
    assert {tuple(row) for row in found.tolist()} == expected


# ------------------------------------------------------------------------------- whole trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """12 images of 5 x 3 patches of 16 px and a rest; cars in the even ones, a truck in two."""
    root = tmp_path / "dota"
    for i in range(12):
        folder = root / ("train" if i < 8 else "val")
        for name in ("images", "labelTxt"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (50, 83, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/P{i:04d}.png")
        lines = []
        if i % 2 == 0:
            lines = [line(upright(2, 3, 10, 7)), line(upright(28, 20, 36, 24))]
        if i in (0, 4):
            lines += [line(upright(50, 2, 78, 12), "large-vehicle")]
        (folder / f"labelTxt/P{i:04d}.txt").write_text(HEAD + "\n".join(lines) + "\n")
    return root


def origin(sample: Sample) -> tuple[str, int, int]:
    """Image, left and top, from the id."""
    match = re.fullmatch(r"(.+\.png)/y(\d+)-x(\d+)", sample.id)
    assert match is not None
    return match[1], int(match[3]), int(match[2])


@pytest.mark.parametrize("stride", [16, 10])
def test_patches_are_where_their_ids_say(tree: Path, stride: int) -> None:
    samples, _ = read(tree, patch=16, stride=stride)
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        name, left, top = origin(sample)
        with Image.open(tree / name) as image:
            expected = np.asarray(image.crop((left, top, left + 16, top + 16)))
        np.testing.assert_array_equal(sample.image, expected)
        assert sample.group == name
        assert sample.source == f"{name} rows {top}-{top + 15}, columns {left}-{left + 15}"
        assert sample.size == (83, 50)
        assert left % stride == top % stride == 0


def test_boxes_outside_of_their_image_are_counted(tree: Path) -> None:
    """Labels of whole images beside patches that were cut from them look like this."""
    label = tree / "train/labelTxt/P0001.txt"
    far = [line(upright(900, 2, 910, 7)), line(upright(83, 0, 90, 7), "large-vehicle")]
    label.write_text(HEAD + "\n".join([*far, line(upright(80, 45, 90, 60), "plane")]) + "\n")
    _, dropped = read(tree, patch=16, stride=16)
    assert [one.count for one in dropped if one.rule == OUTSIDE] == [2]


@pytest.mark.parametrize("stride", [16, 10])
def test_classes_and_dropped_patches_add_up_to_the_grid(tree: Path, stride: int) -> None:
    """Counted here by hand, with upright boxes: lengths times widths."""

    def share(box: tuple[int, ...], left: int, top: int) -> float:
        wide = max(0, min(box[2], left + 16) - max(box[0], left))
        high = max(0, min(box[3], top + 16) - max(box[1], top))
        return wide * high / ((box[2] - box[0]) * (box[3] - box[1]))

    expected: Counter[str] = Counter()
    for i in range(12):
        cars = [(2, 3, 10, 7), (28, 20, 36, 24)] if i % 2 == 0 else []
        trucks = [(50, 2, 78, 12)] if i in (0, 4) else []
        for top in range(0, 50 - 15, stride):
            for left in range(0, 83 - 15, stride):
                if any(share(car, left, top) >= 0.7 for car in cars):
                    expected["cars"] += 1
                elif any(share(box, left, top) > 0 for box in cars + trucks):
                    expected["dropped"] += 1
                else:
                    expected["none"] += 1
    samples, dropped = read(tree, patch=16, stride=stride)
    found = Counter(sample.label for sample in samples)
    found["dropped"] = sum(one.count for one in dropped)
    assert found == expected
    assert min(found.values()) > 0
    assert len(samples) + found["dropped"] == 12 * (15 if stride == 16 else 28)


def test_masks_are_the_cars(tree: Path) -> None:
    """Upright cars at whole pixels, exactly; no mask without a car."""
    samples, _ = read(tree, patch=16, stride=10)
    for sample in samples:
        _, left, top = origin(sample)
        if sample.label == "none":
            assert sample.mask is None
            continue
        y, x = np.mgrid[top : top + 16, left : left + 16]
        inside = sum(
            (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
            for x0, y0, x1, y1 in ((2, 3, 10, 7), (28, 20, 36, 24))
        )
        assert sample.mask is not None and sample.mask.any()
        np.testing.assert_array_equal(sample.mask, 255 * inside)


@pytest.mark.parametrize(
    ("corners", "area"),
    [
        (upright(10, 10, 20, 15), 50),
        (upright(10.25, 10.5, 20.75, 15), 10.5 * 4.5),
        ([[10, 10], [50, 50], [50, 10], [10, 50]], 1600),  # crossed: the hull
        ([[10, 10], [50, 10], [60, 30], [20, 30]], 800),  # skewed
        ([[10, 10], [30, 10], [15, 15], [10, 30]], 100),  # with a corner inwards
        (upright(-10, -10, 5, 4), 20),  # only a part of it in the mask
        (upright(70, 0, 80, 9), 0),
        ([[5.5, 5.5]] * 4, 1),  # without area: the pixel that holds it
    ],
)
def test_area_of_a_mask_is_that_of_the_box(corners: object, area: float) -> None:
    mask = draw_mask(np.array([corners], float), 64, 64)
    assert mask.shape == (64, 64)
    assert mask.sum() / 255 == pytest.approx(area, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(box=box_params)
def test_area_of_the_mask_of_a_rotated_box(box: tuple[float, ...]) -> None:
    x, y, length, width, angle = box
    mask = draw_mask(rotated(x + 20, y + 20, length, width, angle)[None], 64, 64)
    assert mask.sum() / 255 == pytest.approx(length * width, rel=0.01)


@settings(max_examples=25, deadline=None)
@given(box=box_params, moved=st.tuples(st.floats(-40, 10), st.floats(-40, 10)))
def test_each_pixel_of_a_mask_is_the_area_that_shapely_finds(
    box: tuple[float, ...], moved: tuple[float, float]
) -> None:
    """Boxes reach beyond the patch."""
    x, y, length, width, angle = box
    corners = rotated(x + moved[0], y + moved[1], length, width, angle)
    pixels = shapely.box(*patch_grid(24, 16, 1, 1).T.astype(float))
    areas = shapely.area(shapely.intersection(shapely.Polygon(corners), pixels))
    np.testing.assert_allclose(
        draw_mask(corners[None], 24, 16) / 255, areas.reshape(16, 24), atol=0.5 / 255 + 1e-6
    )


def test_boxes_that_overlap_count_once() -> None:
    cars = np.array([upright(2, 2, 8, 8), upright(4, 4, 10, 10)], float)
    assert (draw_mask(cars, 16, 16) == 255).sum() == 2 * 36 - 16


def test_masks_of_smaller_patches_are_shares(tree: Path) -> None:
    whole = {s.id: s for s in read(tree, 16, patch=16, stride=16)[0]}
    for small in read(tree, 4, patch=16, stride=16)[0]:
        if small.mask is not None:
            mask = whole[small.id].mask
            assert mask is not None and small.mask.shape == (4, 4)
            cells = mask.reshape(4, 4, 4, 4).mean((1, 3))
            np.testing.assert_allclose(small.mask, cells, atol=1)


def test_an_image_is_in_one_split(tree: Path) -> None:
    samples, _ = read(tree, patch=16, stride=10)
    splits = defaultdict(set)
    for sample in samples:
        splits[origin(sample)[0]].add(sample.split)
    assert len(splits) == 12
    assert {name.split("/")[0] for name in splits} == {"train", "val"}
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "validation", "test"}


def assignment(root: Path, **options: object) -> dict[str, str]:
    return {unit.key: unit.split for unit in listing(root, **options).units}


def test_splits_are_drawn_among_images_with_cars_and_without(tree: Path) -> None:
    """Of 6 images each: a third is 2, a sixth is 1."""
    drawn = set()
    for seed in range(4):
        splits = assignment(tree, test=1 / 3, validation=1 / 6, seed=seed)
        assert splits == assignment(tree, test=1 / 3, validation=1 / 6, seed=seed)
        for parity in (0, 1):
            found = [s for name, s in splits.items() if int(name[-5]) % 2 == parity]
            assert Counter(found) == {"test": 2, "validation": 1, "train": 3}
        drawn.add(tuple(sorted(splits.items())))
    assert len(drawn) > 1


def test_small_images(tree: Path) -> None:
    """Patches of 64 px: images are 83 x 50."""
    samples, dropped = read(tree, patch=64, stride=64)
    assert not samples
    assert sum(one.count for one in dropped) == 12
    assert {one.rule for one in dropped} == {"an image smaller than a patch"}
    samples, dropped = read(tree, 50, patch=50, stride=50)  # not smaller: they are 50 px high
    assert len(samples) == 12 and not dropped
    samples, dropped = read(tree, 64, patch=64, stride=64, small_images="pad")
    assert not dropped
    assert len(samples) == 12
    for sample in samples:
        with Image.open(tree / origin(sample)[0]) as image:
            np.testing.assert_array_equal(sample.image[:50], np.asarray(image)[:, :64])
        assert not sample.image[50:].any()
        assert sample.label == ("cars" if int(origin(sample)[0][-5]) % 2 == 0 else "none")


def test_gray_patches(tree: Path) -> None:
    found = listing(tree, channels=1, patch=16)
    sample = next(samples_of(found, open_source(str(tree)).load))
    assert sample.image.shape == (16, 16)


def test_images_without_labels_and_labels_without_image_are_counted(tree: Path) -> None:
    (tree / "val/labelTxt/P0009.txt").rename(tree / "val/labelTxt/P0099.txt")
    found = listing(tree)
    assert len(found.units) == 11
    assert {one.rule: one.files for one in found.dropped} == {
        "an image without labels": ("val/images/P0009.png",),
        "labels without an image": ("val/labelTxt/P0099.txt",),
    }


def test_unknown_categories_are_listed_and_are_background(tree: Path) -> None:
    for path in (tree / "train/labelTxt").iterdir():
        path.write_text(path.read_text().replace("small-vehicle", "car"))
    (note,) = listing(tree).notes
    assert note == "boxes of unknown categories count as background: car (8)"
    for path in (tree / "val/labelTxt").iterdir():
        path.write_text(path.read_text().replace("small-vehicle", "car"))
    message = (
        r"no box of small-vehicle in 12 label files; unknown categories in them are car \(12\)"
    )
    with pytest.raises(DataError, match=message):
        listing(tree)


@pytest.mark.parametrize(("turn", "notes"), [(0.0, 1), (0.3, 0)])
def test_labels_of_upright_boxes_alone_are_told(tree: Path, turn: float, notes: int) -> None:
    """Both archives of a release unpacked into one folder leave the upright boxes only."""
    boxes = [line(rotated(20, 20, 8, 4, 0.0))] * 99 + [line(rotated(30, 30, 8, 4, turn))]
    (tree / "train/labelTxt/P0000.txt").write_text("\n".join(boxes))
    found = [note for note in listing(tree).notes if "boxes are upright" in note]
    assert len(found) == notes


def test_a_split_without_cars_is_known_from_the_listing(tree: Path) -> None:
    """Of two images with cars, none is drawn for validation."""
    for i in range(0, 8, 2):
        (tree / f"train/labelTxt/P{i:04d}.txt").write_text(HEAD)
    dataset = DatasetParams(layout="dota", source=str(tree), channels=3)
    with pytest.raises(DataError, match="class 'cars' has no images in split"):
        find_all(LAYOUT, open_source(str(tree)), dataset, PrepareParams(image_size=16))


def test_malformed_line_of_a_file_is_named(tree: Path) -> None:
    (tree / "train/labelTxt/P0003.txt").write_text(HEAD + "1 2 3\n")
    with pytest.raises(DataError, match=r"train/labelTxt/P0003\.txt, line 3: .*'1 2 3'"):
        listing(tree)


def test_byte_order_mark_of_a_file(tree: Path) -> None:
    before = {sample.id: sample.label for sample in read(tree, patch=16)[0]}
    for path in tree.rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert {sample.id: sample.label for sample in read(tree, patch=16)[0]} == before


def test_too_few_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"0 images with labels .*, three splits take at least 3"):
        listing(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"coverage": 0.0}, "coverage is 0.0"),
        ({"coverage": 1.1}, "coverage is 1.1"),
        (
            {"small_images": "stretch"},
            "options.small_images is 'stretch'; it must be 'skip' or 'pad'",
        ),
        ({"validation": 0.5, "test": 0.5}, "must be below 1"),
        ({"strid": 1}, "unknown 'strid'; valid are coverage, difficult, labels, patch"),
    ],
)
def test_bad_options(tree: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        listing(tree, **options)
