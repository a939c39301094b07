"""Slices of volumes made here, whose anatomy and tumour are known."""

from __future__ import annotations

import gzip
import re
import shutil
from collections import defaultdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing, Sample
from dxai.datasets.layouts.brats import LITTLE, NARROW, find
from dxai.datasets.layouts.brats_cases import NO_IMAGE, UNLABELLED
from dxai.datasets.source import open_source

SHAPE = (20, 24, 10)
"""Voxels towards right, anterior and superior."""

Volumes = tuple[np.ndarray, np.ndarray]


def listing(root: Path, size: int = 24, channels: int = 1, **options: object) -> Listing:
    dataset = DatasetParams(layout="brats", source=str(root), channels=channels, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=size))


def read(root: Path, size: int = 24, **options: object) -> tuple[list[Sample], list[Dropped]]:
    found, load = listing(root, size, **options), open_source(str(root)).load
    everything = [one for unit in found.units for one in found.read(unit, load)]
    samples = [one for one in everything if isinstance(one, Sample)]
    return samples, [one for one in everything if isinstance(one, Dropped)]


def head(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Volumes:
    """A full brain of values 100 .. 199 in a rim of nothing; a tumour of 5 x 5 in slices 3 to 6."""
    values = np.zeros(shape, np.int16)
    inner = values[2:-2, 2:-2]
    inner[:] = np.random.default_rng(seed).integers(100, 200, inner.shape)
    tumour = np.zeros(shape, np.uint8)
    tumour[4:9, 5:10, 3:7] = 2
    return values, tumour


def save(
    folder: Path,
    volumes: Volumes,
    axes: str = "RAS",
    names: tuple[str, str] = ("_flair.nii.gz", "_seg.nii.gz"),
) -> Path:
    """Volumes, given as right, anterior, superior, stored with their axes as `axes` says."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    for name, volume in zip(names, volumes, strict=True):
        image = nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 2.0, 1.0]))
        image = image.as_reoriented(steps)
        assert "".join(nibabel.aff2axcodes(image.affine)) == axes
        nibabel.save(image, folder / f"{folder.name}{name}")
    return folder


def cases(root: Path, count: int = 8) -> Path:
    for i in range(count):
        save(root / f"Brats18_{i:03d}", head(i))
    return root


def one_case(root: Path, volumes: Volumes, **how: object) -> tuple[list[Sample], list[Dropped]]:
    """What comes of one case; others are there because three splits need them."""
    cases(root, 3)
    save(root / "mine", volumes, **how)
    found, load = listing(root, max(volumes[0].shape[:2])), open_source(str(root)).load
    (unit,) = [unit for unit in found.units if unit.key == "mine"]
    everything = list(found.read(unit, load))
    samples = [one for one in everything if isinstance(one, Sample)]
    return samples, [one for one in everything if isinstance(one, Dropped)]


def test_cases_of_one_name_in_several_folders_are_noted_unless_a_group_says_whose_they_are(
    tmp_path: Path,
) -> None:
    for site in "AB":
        for i in range(4):
            save(tmp_path / site / f"BraTS_{i}", head(i))
    (note,) = listing(tmp_path).notes
    assert note.startswith("4 names stand for cases in several folders, such as A/BraTS_0 and B/")
    assert "options.group" in note
    found = listing(tmp_path, group=r"BraTS_(\d)")
    assert not found.notes
    assert len({(unit.group, unit.split) for unit in found.units}) == 4
    assert not listing(cases(tmp_path / "A")).notes


# ------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "RSA", "ILP", "ASL"])
def test_the_same_anatomy_gives_the_same_slices(tmp_path: Path, axes: str) -> None:
    """In radiological convention: the patient's right on the left, the front at the top."""
    values, tumour = head()
    values[2:4, -5:-2] = 1000  # a corner at the patient's left and front; R is towards high x
    values[-4:-2, 10:12] = 800
    samples, dropped = one_case(tmp_path, (values, tumour), axes=axes)
    assert not dropped and len(samples) == 10
    gray, _ = expected_gray(values)
    for z, sample in enumerate(samples):
        assert sample.id == f"mine/z{z:03d}"
        assert sample.label == ("tumour" if 3 <= z < 7 else "healthy")
        shown = np.zeros((24, 24), np.uint8)
        for x in range(20):
            for y in range(24):
                shown[23 - y, 2 + 19 - x] = gray[x, y, z]
        np.testing.assert_array_equal(sample.image, shown)
    image = samples[0].image
    # The patient's left is shown at the right, the front at the top; nothing else is as bright.
    assert (image[2:5, 18:20] == 255).all() and (image == 255).sum() == 6


def expected_gray(values: np.ndarray, clip: tuple[float, float] = (0.5, 99.5)) -> Volumes:
    """Straight from the definition, by sorting; 0 outside the brain."""
    inside = np.sort(values[values > 0].astype(np.float64))
    low, high = (
        np.interp(share / 100 * (len(inside) - 1), np.arange(len(inside)), inside) for share in clip
    )
    scaled = np.clip((values - low) / (high - low), 0, 1) * 255
    return np.where(values > 0, np.rint(scaled), 0).astype(np.uint8), values > 0


def test_masks_lie_on_their_slices(tmp_path: Path) -> None:
    values, tumour = head()
    values[tumour > 0] = 1000
    samples, _ = one_case(tmp_path, (values, tumour), axes="PIR")
    for sample in samples:
        if sample.label == "healthy":
            assert sample.mask is None
        else:
            assert sample.mask is not None
            np.testing.assert_array_equal(sample.mask == 255, sample.image == 255)
            assert (sample.mask == 255).sum() == 25
            assert set(np.unique(sample.mask)) == {0, 255}


# ------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("pixels", "kind"), [(0, "healthy"), (1, LITTLE), (19, LITTLE), (20, "tumour"), (21, "tumour")]
)
def test_twenty_pixels_of_tumour(tmp_path: Path, pixels: int, kind: str) -> None:
    """Any label above 0 counts, whatever its kind."""
    values, tumour = head()
    tumour[:] = 0
    flat = tumour[:, :, 4].reshape(-1)
    inside = np.flatnonzero(values[:, :, 4].reshape(-1))[:pixels]
    flat[inside] = np.array([1, 2, 4])[np.arange(pixels) % 3]
    tumour[:, :, 4] = flat.reshape(20, 24)
    samples, dropped = one_case(tmp_path, (values, tumour))
    labels = {sample.id: sample.label for sample in samples}
    assert labels.get("mine/z004", LITTLE) == kind
    assert [(one.rule, one.count) for one in dropped] == ([(LITTLE, 1)] if kind == LITTLE else [])
    assert len(samples) + len(dropped) == 10


@pytest.mark.parametrize(("rows", "kept"), [(16, True), (12, True), (11, False), (1, False)])
def test_full_cross_section(tmp_path: Path, rows: int, kept: bool) -> None:
    """The largest area is 16 rows of 20; 70% of it are 224 pixels, 11.2 rows."""
    values, tumour = head()
    values[2 + rows :, :, 9] = 0
    samples, dropped = one_case(tmp_path, (values, tumour))
    assert ("mine/z009" in {sample.id for sample in samples}) == kept
    assert [one.rule for one in dropped] == ([] if kept else [NARROW])


def test_exactly_seventy_percent_is_a_full_cross_section(tmp_path: Path) -> None:
    values, tumour = head()  # 16 x 20 = 320 pixels, of which 224 are 70%
    values[:, :, 9] = 0
    values[2:16, 4:20, 9] = 150
    assert (values[:, :, 9] > 0).sum() == 224
    samples, _ = one_case(tmp_path, (values, tumour))
    assert "mine/z009" in {sample.id for sample in samples}


def test_tumour_needs_no_cross_section(tmp_path: Path) -> None:
    values, tumour = head()
    values[10:, :, 4] = 0
    samples, dropped = one_case(tmp_path, (values, tumour))
    assert {sample.id: sample.label for sample in samples}["mine/z004"] == "tumour"
    assert not dropped


def test_empty_slices_are_dropped(tmp_path: Path) -> None:
    values, tumour = head()
    values[:, :, :2] = 0
    samples, dropped = one_case(tmp_path, (values, tumour))
    assert [(one.rule, one.count) for one in dropped] == [(NARROW, 1)] * 2
    assert len(samples) == 8


# ------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("clip", [(0.5, 99.5), (0.0, 100.0), (10.0, 60.0)])
def test_intensities_between_two_percentiles(tmp_path: Path, clip: tuple[float, float]) -> None:
    root = cases(tmp_path)
    for sample in read(root, clip=list(clip))[0]:
        values, _ = head(int(sample.id.split("/")[0][-3:]))
        gray, _ = expected_gray(values, clip)
        z = int(sample.id[-3:])
        inner = sample.image[:, 2:22]
        np.testing.assert_allclose(inner, gray[::-1, ::-1, z].T, atol=1)


def test_outliers_do_not_darken_the_brain(tmp_path: Path) -> None:
    """100 .. 199 evenly, and a voxel of 30000: the 99.5th percentile is still 199."""
    values, tumour = head()
    values[5, 5, 0] = 30000
    samples, _ = one_case(tmp_path, (values, tumour))
    pixels = np.stack([sample.image[2:-2, 4:-4] for sample in samples])
    assert pixels.size == (values > 0).sum()
    # Its mean is that of a uniform variable: 127.5, with a deviation of 255 / sqrt(12 * 3200).
    np.testing.assert_allclose(pixels.mean(), 127.5, atol=5)


@pytest.mark.parametrize("stored", ["int16", "float32", "scaled", "float64", "uint8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kinds", [("_flair", "_seg"), ("-t2f", "-seg")])
def test_ways_to_store_a_volume(
    tmp_path: Path, stored: str, suffix: str, kinds: tuple[str, str]
) -> None:
    """All give the slices of the plain integers: the brain's values are mapped linearly."""
    values, tumour = head()
    wanted, _ = one_case(tmp_path / "plain", (values, tumour))
    root = cases(tmp_path / "other", 3)
    folder = root / "mine"
    folder.mkdir()
    for kind, volume in zip(kinds, (values, tumour), strict=True):
        path = folder / f"mine{kind}{suffix}"
        if stored == "scaled":
            image = nibabel.Nifti1Image(4 * volume, np.diag([1.0, 1.0, 2.0, 1.0]))
            image.header.set_slope_inter(0.25, 0)
            nibabel.save(image, path)
            np.testing.assert_array_equal(nibabel.load(path).get_fdata(), volume)
        else:
            image = nibabel.Nifti1Image(volume.astype(stored), np.diag([1.0, 1.0, 2.0, 1.0]))
            nibabel.save(image, path)
    found, load = listing(root), open_source(str(root)).load
    (unit,) = [unit for unit in found.units if unit.key == "mine"]
    samples = list(found.read(unit, load))
    assert len(samples) == len(wanted)
    for sample, other in zip(samples, wanted, strict=True):
        assert isinstance(sample, Sample)
        assert sample.label == other.label
        np.testing.assert_allclose(sample.image.astype(int), other.image.astype(int), atol=1)


@pytest.mark.parametrize("shape", [(20, 24, 10), (24, 20, 10), (23, 20, 10), (21, 21, 10)])
def test_slices_are_padded_to_a_square_not_cropped(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    values, tumour = head(shape=shape)
    values[0], values[-1], values[:, 0], values[:, -1] = 150, 150, 150, 150
    samples, _ = one_case(tmp_path, (values, tumour))
    side = max(shape[:2])
    for sample in samples:
        z = int(sample.id[-3:])
        assert sample.image.shape == (side, side)
        assert (sample.image > 0).sum() <= (values[:, :, z] > 0).sum()
        rows, columns = (np.flatnonzero((sample.image > 0).any(axis)) for axis in (1, 0))
        assert len(rows) == shape[1] and len(columns) == shape[0]
        for found, n in ((rows, shape[1]), (columns, shape[0])):
            assert found[0] == (side - n) // 2
        assert sample.size == shape[:2]


# ------------------------------------------------------------------------------------ faults


def truncated(folder: Path) -> None:
    path = folder / "Brats18_001_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def cut_inside(folder: Path) -> None:
    """A whole gzip stream of half a volume."""
    path = folder / "Brats18_001_flair.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-500]))


def flipped_bytes(folder: Path) -> None:
    path = folder / "Brats18_001_flair.nii.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def empty(folder: Path) -> None:
    (folder / "Brats18_001_flair.nii.gz").write_bytes(b"")


def text(folder: Path) -> None:
    (folder / "Brats18_001_flair.nii.gz").write_bytes(gzip.compress(b"no volume" * 100))


def change(folder: Path, **volumes: np.ndarray) -> None:
    for kind, volume in volumes.items():
        image = nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 2.0, 1.0]))
        nibabel.save(image, folder / f"Brats18_001_{kind}.nii.gz")


def four_axes(folder: Path) -> None:
    change(folder, flair=np.stack([head()[0]] * 2, -1))


def two_axes(folder: Path) -> None:
    change(folder, flair=head()[0][..., 0])


def other_size(folder: Path) -> None:
    change(folder, seg=head()[1][:, :, :-1])


def other_position(folder: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 7
    image = nibabel.Nifti1Image(head()[1], affine)
    nibabel.save(image, folder / "Brats18_001_seg.nii.gz")


def constant(folder: Path) -> None:
    change(folder, flair=np.where(head()[0] > 0, 7, 0).astype(np.int16))


def nothing(folder: Path) -> None:
    change(folder, flair=np.zeros(SHAPE, np.int16))


def with_nan(folder: Path) -> None:
    values = head()[0].astype(np.float32)
    values[0, 0, 0] = np.nan
    change(folder, flair=values)


def with_infinity(folder: Path) -> None:
    values = head()[0].astype(np.float32)
    values[5, 5, 5] = np.inf
    change(folder, flair=values)


def nan_in_the_mask(folder: Path) -> None:
    tumour = head()[1].astype(np.float32)
    tumour[0, 0, 0] = np.nan
    change(folder, seg=tumour)


def colour(folder: Path) -> None:
    change(folder, flair=np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])))


def complex_values(folder: Path) -> None:
    change(folder, flair=head()[0].astype(np.complex64))


def empty_axis(folder: Path) -> None:
    change(folder, flair=head()[0][:0])


def lying_header(folder: Path) -> None:
    """Dimensions of 32000 voxels each, which nobody should make room for."""
    image = nibabel.Nifti1Image(head()[0], np.eye(4)).to_bytes()
    sizes = np.array([32000] * 3, "<i2").tobytes()
    path = folder / "Brats18_001_flair.nii.gz"
    path.write_bytes(gzip.compress(image[:42] + sizes + image[48:]))


def no_background(folder: Path) -> None:
    change(folder, flair=np.random.default_rng(0).normal(500, 100, SHAPE).astype(np.float32))


def huge(folder: Path) -> None:
    change(folder, flair=head()[0] * 1e300)


def below_zero(folder: Path) -> None:
    change(folder, seg=np.where(head()[1] > 0, 2, -1).astype(np.int16))


def thousandths(folder: Path) -> None:
    change(folder, seg=head()[1] * np.float32(0.001))


def interpolated_percent(folder: Path) -> None:
    change(folder, seg=ndimage.zoom(np.kron(head()[1] * 50.0, np.ones((2, 2, 2))), 0.5))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "Brats18_001_flair.nii.gz: unreadable volume"),
        (cut_inside, "Brats18_001_flair.nii.gz: unreadable volume"),
        (flipped_bytes, "Brats18_001_flair.nii.gz: unreadable volume"),
        (empty, "Brats18_001_flair.nii.gz: unreadable volume (it is an empty file)"),
        (text, "Brats18_001_flair.nii.gz: unreadable volume (it is text that begins with"),
        (four_axes, "unreadable volume (4 dimensions, not 3)"),
        (two_axes, "unreadable volume (2 dimensions, not 3)"),
        (empty_axis, "no voxels, its size is (0, 24, 10)"),
        (lying_header, "bytes, but its header promises"),
        (other_size, "Brats18_001_seg.nii.gz (20, 24, 9) is on another grid than"),
        (
            other_position,
            "is on another grid than Brats18_001/Brats18_001_flair.nii.gz (20, 24, 10)",
        ),
        (
            constant,
            "Brats18_001_flair.nii.gz: most voxels are 0 or 7; set all that is not brain to 0",
        ),
        (nothing, "Brats18_001_flair.nii.gz: no brain: every voxel is 0"),
        (no_background, "Brats18_001_flair.nii.gz: no background: the volume's corners go from"),
        (huge, "above 1e+30"),
        (with_nan, "not finite"),
        (with_infinity, "not finite"),
        (nan_in_the_mask, "not finite"),
        (colour, "unreadable volume (voxels of type"),
        (complex_values, "unreadable volume (voxels of type complex64, not real numbers)"),
        (below_zero, "Brats18_001_seg.nii.gz: values from -1 to 2; labels are 0 (no tumour) and"),
        (thousandths, "Brats18_001_seg.nii.gz: values from 0 to 0.002; labels are whole numbers"),
        (interpolated_percent, "not all of them whole, so ripples of an interpolation count"),
    ],
)
def test_damaged_volume_is_named_with_its_case(tmp_path: Path, spoil: object, message: str) -> None:
    cases(tmp_path, 4)
    assert callable(spoil)
    spoil(tmp_path / "Brats18_001")
    with pytest.raises(DataError, match="case Brats18_001: .*" + re.escape(message)):
        read(tmp_path)


def test_too_few_patients(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 patients are too few for three splits"):
        listing(cases(tmp_path, 2))


def test_two_patients_suffice_where_slices_are_split(tmp_path: Path) -> None:
    samples, _ = read(cases(tmp_path, 2), split_by="slice", seed=1)
    assert len(samples) == 20


# ------------------------------------------------------------------------------------ splits


def test_patients_are_split(tmp_path: Path) -> None:
    """Of 10 patients a fifth is 2 and 15% is 1.5, rounded to the nearest even, 2."""
    samples, _ = read(cases(tmp_path, 10))
    patients = defaultdict(set)
    for sample in samples:
        patients[sample.split].add(sample.group)
    assert {split: len(found) for split, found in patients.items()} == {
        "test": 2,
        "validation": 2,
        "train": 6,
    }
    assert sum(map(len, patients.values())) == len(set().union(*patients.values()))


@pytest.mark.parametrize("seed", range(3))
def test_examinations_of_a_patient_stay_together(tmp_path: Path, seed: int) -> None:
    for patient in range(6):
        for visit in range(3):
            name = f"BraTS-GLI-{patient:05d}-{visit:03d}"
            save(tmp_path / name, head(10 * patient + visit), names=("-t2f.nii.gz", "-seg.nii.gz"))
    splits = defaultdict(set)
    for unit in listing(tmp_path, seed=seed).units:
        assert unit.group == unit.key[: len("BraTS-GLI-00000")]
        splits[unit.group].add(unit.split)
    assert len(splits) == 6
    assert all(len(found) == 1 for found in splits.values())


def test_the_assignment_follows_the_seed(tmp_path: Path) -> None:
    root = cases(tmp_path, 10)

    def splits(seed: int) -> dict[str, str]:
        return {unit.key: unit.split for unit in listing(root, seed=seed).units}

    assert splits(1) == splits(1)
    assert len({tuple(sorted(splits(seed).items())) for seed in range(5)}) > 1


def test_slices_are_split_whatever_the_order(tmp_path: Path) -> None:
    """A fifth to test, within five deviations of the binomial; a slice's split is its own."""
    root = cases(tmp_path, 20)
    found, load = listing(root, 8, split_by="slice"), open_source(str(root)).load
    forwards = [one for unit in found.units for one in found.read(unit, load)]
    backwards = [one for unit in reversed(found.units) for one in found.read(unit, load)]
    splits = [
        {one.id: one.split for one in way if isinstance(one, Sample)}
        for way in (forwards, backwards)
    ]
    assert splits[0] == splits[1]
    assert len(splits[0]) == 200
    for split, share in (("test", 0.2), ("validation", 0.15), ("train", 0.65)):
        count = sum(value == split for value in splits[0].values())
        assert abs(count - 200 * share) < 5 * np.sqrt(200 * share * (1 - share))
    mixed = defaultdict(set)
    for name, split in splits[0].items():
        mixed[name.split("/")[0]].add(split)
    assert any(len(found) > 1 for found in mixed.values())
    other, _ = read(root, 8, split_by="slice", seed=5)
    assert {one.id: one.split for one in other} != splits[0]


def test_patients_by_a_pattern(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / f"sub-{i // 2}/ses-{i}", head(i))
    splits = defaultdict(set)
    for unit in listing(tmp_path, group=r"sub-(\d)").units:
        assert unit.group == unit.key[4]
        splits[unit.group].add(unit.split)
    assert len(splits) == 4 and all(len(found) == 1 for found in splits.values())
    assert {unit.group for unit in listing(tmp_path).units} == {
        f"sub-{i // 2}/ses-{i}" for i in range(8)
    }
    with pytest.raises(DataError, match=r"ses-0_flair\.nii\.gz: the group pattern .*not found"):
        listing(tmp_path, group=r"ses-(9)")


def test_what_is_no_case_is_left_out(tmp_path: Path) -> None:
    """A case without a segmentation, and a network's prediction beside the truth."""
    cases(tmp_path, 5)
    (tmp_path / "Brats18_004/Brats18_004_seg.nii.gz").unlink()
    folder = tmp_path / "Brats18_001"
    shutil.copy(
        tmp_path / "Brats18_002/Brats18_002_seg.nii.gz", folder / "Brats18_001_unet_seg.nii.gz"
    )
    found = listing(tmp_path)
    assert {one.rule: one.count for one in found.dropped} == {UNLABELLED: 1, NO_IMAGE: 1}
    assert len(read(tmp_path)[0]) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_tumour": 0}, "min_tumour is 0"),
        ({"cross_section": 0.0}, "cross_section is 0.0"),
        ({"clip": [99.0, 1.0]}, "clip is [99.0, 1.0]"),
        ({"clip": [1.0]}, "clip is [1.0]"),
        ({"split_by": "voxel"}, "split_by is 'voxel'; it must be 'patient' or 'slice'"),
        ({"test": 0.0}, "greater than 0"),
        ({"group": "("}, "is not a regular expression"),
        ({"group": "sub"}, "captures nothing"),
        ({"tumor": 20}, "unknown 'tumor'; valid are clip, cross_section, group, min"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        listing(cases(tmp_path, 1), **options)


def test_colour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="channels is 3; MRI is gray"):
        listing(tmp_path, channels=3)
