"""Damaged files in every release: a sample, a count, or one line that names the file."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import DataError, File, Sample
from dxai.datasets.images import EXTENSIONS
from dxai.datasets.leftovers import find_all
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import Source, check_plain_path, is_hidden, suffix
from tests.unit.datasets.damage import damage, images, rename
from tests.unit.datasets.releases import RELEASES
from tests.unit.datasets.test_releases import rows

FILES = 20_000
CHUNK = 250
SIZE = 8
FOREIGN = (b"", b"<html>404</html>", b"\0" * 400, b"version https://git-lfs.github.com/spec/v1\n")


class MemorySource(Source):
    """A source whose files are in memory."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__("source")
        self.content = content

    def files(self) -> list[File]:
        return [
            File(check_plain_path(name, self.name), len(data), "")
            for name, data in sorted(self.content.items())
            if not is_hidden(name)
        ]

    def load(self, file: File) -> bytes:
        return self.content[file.name]


class Tree(NamedTuple):
    """A release as unpacked."""

    name: str
    dataset: DatasetParams
    content: dict[str, bytes]


def trees() -> list[Tree]:
    """All releases of docs/datasets.md; `folder` has ground truth as well."""
    found = []
    for name, _, entry in rows():
        with tempfile.TemporaryDirectory() as folder:
            RELEASES[name](Path(folder))
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        values = yaml.safe_load(entry) | {"source": "source"}
        if values["layout"] == "dota":
            sides = {"patch": 16, "stride": 16}
            values["options"] = values.get("options", {}) | sides
        if values["layout"] == "folder":
            shown = [name for name in content if suffix(name) in EXTENSIONS]
            for image, kind in zip(shown[:2], ("mask", "neutral"), strict=True):
                content[f"truth/{kind}/{image}"] = content[image]
        found.append(Tree(name, parse(DatasetParams, values, name), content))
    return found


def fault_of(tree: Tree, seed: int) -> str | None:
    """Damage one file of a release and read what then is in it; return what went wrong."""
    rng = np.random.default_rng(seed)
    names = sorted(tree.content)
    # Tables and labels are few beside the images: they are drawn as often.
    tables = [name for name in names if suffix(name) in (".txt", ".csv")]
    chosen = tables if tables and rng.random() < 0.5 else names
    name = chosen[rng.integers(len(chosen))]
    data = tree.content[name]
    if suffix(name) in EXTENSIONS and rng.random() < 0.9:
        data = images()[rng.integers(len(images()))]
    others = [*images(), *FOREIGN, tree.content[names[rng.integers(len(names))]]]
    content = dict(tree.content)
    damaged = rename(name, rng) if rng.random() < 0.1 else name
    del content[name]
    content[damaged] = damage(data, rng, others)
    where = f"{tree.name}, seed {seed}, {damaged}"
    try:
        _read(tree, content, damaged)
    except DataError as error:
        text = str(error)
        parts = {Path(part).name for part in (name, damaged, *Path(name).parts[:-1])}
        if "\n" in text:
            return f"{where}: more than a line: {text}"
        if not any(part in text for part in {*parts, Path(name).stem, "source: class"}):
            return f"{where}: not named: {text}"
    except Exception as error:  # the point of this test
        return f"{where}: {type(error).__name__}: {error}"
    return None


def _read(tree: Tree, content: dict[str, bytes], damaged: str) -> None:
    """List a release and read the unit of the damaged file, or the first if it is in none."""
    source = MemorySource(content)
    prepare = PrepareParams(image_size=SIZE)
    listing = find_all(LAYOUTS[tree.dataset.layout], source, tree.dataset, prepare)
    holding = [u for u in listing.units if damaged in [file.name for file in u.files]]
    shape = (SIZE, SIZE) if tree.dataset.channels == 1 else (SIZE, SIZE, 3)
    for found in listing.read((holding or listing.units)[0], source.load):
        if isinstance(found, Sample):
            assert (found.image.shape, found.image.dtype) == (shape, np.uint8)
            assert found.mask is None or found.mask.shape == (SIZE, SIZE)
        else:
            assert found.rule and found.count > 0


_trees: list[Tree] = []


def faults_of(seeds: range) -> list[str]:
    """Check a range of seeds, in another process; releases take turns."""
    if not _trees:
        _trees.extend(trees())
    warnings.simplefilter("ignore")  # nibabel warns of odd headers
    found = (fault_of(_trees[seed % len(_trees)], seed) for seed in seeds)
    return [fault for fault in found if fault is not None]


def test_a_few_damaged_files() -> None:
    assert not faults_of(range(FILES, FILES + 150))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_damaged_files_raise_nothing_but_one_line_that_names_them() -> None:
    workers = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    chunks = [range(start, start + CHUNK) for start in range(0, FILES, CHUNK)]
    with ProcessPoolExecutor(workers, context) as pool:
        faults = [fault for found in pool.map(faults_of, chunks) for fault in found]
    assert not faults, f"{len(faults)} of {FILES}, first\n" + "\n".join(faults[:20])
