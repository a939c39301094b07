"""Every file below a source is used, read while listing, or left out and counted by its name."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from dxai.config.params_file import read_yaml
from dxai.config.profiles import CATALOGUE as CATALOGUE_FILE
from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import DataError, Listing, Unit
from dxai.datasets.leftovers import check_classes, find_all
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import open_source
from tests.unit.datasets.conftest import Drawn

CATALOGUE = read_yaml(CATALOGUE_FILE)["datasets"]
DRAWN = [name for name, layout in LAYOUTS.items() if layout.render_sample is not None]


def picture() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def volume() -> bytes:
    return nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_bytes()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "notes.txt": lambda: b"notes",
    "planted.png": picture,
    "planted.jpg": picture,
    "planted.csv": lambda: b"path,label,split\n",
    "planted_t1.nii": volume,
    "planted": lambda: b"",
    "dev/planted.png": picture,
    "dev/cat/planted.png": picture,
    "truth/mask/planted.png": picture,
}
"""Files that somebody else's folder may hold, put into every kind of folder of a sample."""


def dataset_of(layout: str, source: Path) -> DatasetParams:
    entry = next(found for found in CATALOGUE.values() if found["layout"] == layout)
    return parse(DatasetParams, entry, "made").replace(source=str(source))


def find(layout: str, source: Path) -> Listing:
    dataset = dataset_of(layout, source)
    return find_all(LAYOUTS[layout], open_source(str(source)), dataset, PrepareParams(image_size=8))


def kinds_of_folders(root: Path) -> list[Path]:
    """The root, and the first two folders in each of the folders listed so far."""
    found = [Path()]
    for folder in found:
        inside = sorted(path for path in (root / folder).iterdir() if path.is_dir())
        found += [path.relative_to(root) for path in inside[:2]]
    return found


@pytest.fixture(scope="module", params=DRAWN)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def copied(layout: str, drawn: Drawn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(f"foreign-{layout}") / "raw"
    shutil.copytree(drawn(layout), root)
    return root


def test_every_file_of_a_sample_is_used(layout: str, drawn: Drawn) -> None:
    listing = find(layout, drawn(layout))
    assert not listing.dropped and not listing.notes


def remove_empty(folder: Path) -> None:
    while not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_used_or_counted_by_their_name(
    layout: str, copied: Path, name: str
) -> None:
    """An error is as good if it names the file, or the folder that came with it."""
    for folder in kinds_of_folders(copied):
        planted = (folder / name).as_posix()
        (copied / planted).parent.mkdir(parents=True, exist_ok=True)
        (copied / planted).write_bytes(FOREIGN[name]())
        try:
            listing = find(layout, copied)
        except DataError as error:
            named = any(part in str(error) for part in Path(name).parts)
            assert named, f"{planted}: {error}"
            continue
        finally:
            (copied / planted).unlink()
            remove_empty((copied / planted).parent)
        used = [file.name for unit in listing.units for file in unit.files]
        left = [found for one in listing.dropped for found in one.files]
        assert (used + left).count(planted) == 1, f"{planted}: used or counted once"
        assert all(one.count == len(one.files) for one in listing.dropped), "all by their names"


def test_hidden_files_and_empty_folders_are_noted(layout: str, copied: Path) -> None:
    for folder in kinds_of_folders(copied):
        (copied / folder / ".DS_Store").write_bytes(b"")
        (copied / folder / "empty").mkdir()
        try:
            notes = find(layout, copied).notes
        except DataError as error:
            assert "empty" in str(error)
            continue
        finally:
            (copied / folder / ".DS_Store").unlink()
            (copied / folder / "empty").rmdir()
        hidden, empty = (folder / ".DS_Store").as_posix(), (folder / "empty").as_posix()
        assert f"hidden files or folders are skipped: 1, first {hidden}" in notes
        assert f"empty folders are skipped: 1, first {empty}" in notes


@pytest.mark.parametrize(
    ("units", "missing"),
    [
        ([Unit("1", "train", label="a"), Unit("2", "train", label="b")], "'a' .* in split validat"),
        ([Unit("1", s, label=c) for s in ("train", "validation") for c in "ab"], "'a' .* test"),
        ([Unit(s, s) for s in ("train", "validation")], "'a' has no images in split test"),
        ([Unit(s, s, classes=("b",)) for s in ("train", "validation", "test")], "'a' .* train"),
        ([Unit(s, s) for s in ("train", "validation", "test")], None),
        ([Unit("1"), Unit("2", "train", label="a")], None),
    ],
)
def test_a_class_without_images_is_known_from_the_listing(
    units: list[Unit], missing: str | None
) -> None:
    listing = Listing(("a", "b"), units, lambda unit, load: [])
    if missing is None:
        check_classes(listing, "raw")
        return
    with pytest.raises(DataError, match=f"raw: class {missing}"):
        check_classes(listing, "raw")
