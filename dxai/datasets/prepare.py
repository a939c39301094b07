"""The step from raw images to shards."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dxai.config.schema import DatasetParams, Params
from dxai.config.settings import ParamsError, choose
from dxai.datasets.base import DataError, Layout, Listing
from dxai.datasets.leftovers import find_all
from dxai.datasets.parallel_reader import Elsewhere
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.shard_writer import Target, write_dataset
from dxai.datasets.source import SAMPLE, LocalSource, Source, expand, open_source
from dxai.utils.files import digest
from dxai.utils.storage import StorageError


def prepare(
    name: str,
    params: Params,
    out: Path | str,
    work: Path | str,
    workers: int = 0,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Filter, split, crop and resize a dataset's raw images into shards; return the manifest.

    Parameters
    ----------
    name, params
        A name in `params.datasets`, and the run's settings.
    out : path
        Folder of shards and data card; it appears, or changes, only after every image was read.
    work : path
        Folder of unfinished work, from which the next run continues.
    workers : int
        Reading processes; 0 is one per core. The result does not depend on it.
    elsewhere : callable, optional
        What reads a large set instead; a drawn sample, which only this machine has, is read here.

    Raises
    ------
    ParamsError
        For an unknown dataset, layout or option.
    DataError
        For unusable images, or other counts than those of the declared release.
    """
    dataset = params.dataset(name)
    layout = LAYOUTS[choose(f"dataset {name}: layout", dataset.layout, LAYOUTS)]
    try:
        with raw_images(name, dataset, layout, Path(work)) as source:
            listing = find_all(layout, source, dataset, params.prepare)
            for note in listing.notes:
                print(f"prepare {name}: {note}")
            target = _target(name, params, layout, listing, Path(out), Path(work))
            manifest = write_dataset(
                target, listing, source, workers, None if target.about["drawn"] else elsewhere
            )
        _report(name, manifest)
        _check_release(dataset, layout, listing, manifest, Path(out))
        return manifest
    except (DataError, ParamsError, StorageError) as error:
        raise type(error)(f"dataset {name}: {error}") from error


def _is_drawn(dataset: DatasetParams, layout: Layout) -> bool:
    return layout.render_sample is not None and expand(dataset.source) == SAMPLE


@contextlib.contextmanager
def raw_images(
    name: str, dataset: DatasetParams, layout: Layout, work: Path
) -> Iterator[Source | None]:
    """Open the raw images; those of a drawn sample exist only inside the block."""
    if layout.render_sample is None:
        yield None
    elif _is_drawn(dataset, layout):
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix="sample-") as folder:
            print(f"prepare {name}: drawing the sample", flush=True)
            layout.render_sample(Path(folder), dataset.options)
            drawn = LocalSource(Path(folder))
            drawn.name = SAMPLE
            yield drawn
    else:
        yield open_source(dataset.source)


def _target(
    name: str, params: Params, layout: Layout, listing: Listing, out: Path, work: Path
) -> Target:
    dataset = params.dataset(name)
    drawn = _is_drawn(dataset, layout)
    about = {
        "name": name,
        "layout": dataset.layout,
        "drawn": drawn,
        "channels": dataset.channels,
        "image_size": params.prepare.image_size,
        "encoding": dataset.encoding,
    }
    units = [
        (u.key, u.split, [(f.size, "" if drawn else f.version) for f in u.files])
        for u in listing.units
    ]
    key = digest([about, listing.options, params.prepare.model_dump(), units, _code()])
    return Target(
        out,
        work / name / key,
        about,
        params.prepare.shard_mb << 20,
        params.prepare.duplicates,
        "drawn by this program" if drawn else layout.origin,
        "that of this program" if drawn else layout.licence,
        None if drawn else layout.counts(listing.options),
    )


def _code() -> str:
    """Digest of this package, so that other versions' unfinished work is not continued."""
    return digest([path.read_text() for path in sorted(Path(__file__).parent.rglob("*.py"))])


def _report(name: str, manifest: dict[str, Any]) -> None:
    for row in manifest["dropped"]:
        where = f"{row['split']} {row['class']}".strip()
        first = f", first {row['first']}" if row["first"] else ""
        print(f"prepare {name}: left out {row['images']} ({row['rule']}{first}) {where}".rstrip())
    twins = manifest["duplicates"]
    for kind, examples, where in (
        ("across", "examples", "in two splits"),
        ("classes", "class_examples", "under two classes"),
    ):
        if twins[kind]:
            one, other = twins[examples][0]
            print(f"prepare {name}: files {where}: {twins[kind]}, first {one} = {other}")


def _check_release(
    dataset: DatasetParams, layout: Layout, listing: Listing, manifest: dict[str, Any], out: Path
) -> None:
    """Raise an error if a source declared as the paper's release has other counts."""
    paper = layout.counts(listing.options)
    if dataset.release is None or paper is None or manifest["drawn"]:
        return
    sums = {split: sum(counts.values()) for split, counts in manifest["counts"].items()}
    found = (sums["train"] + sums["validation"], sums["test"])
    text = f"{found[0]} training and {found[1]} test images; Table 5 has {paper[0]} and {paper[1]}"
    if found != paper and layout.exact:
        raise DataError(
            f"release: paper was declared, but there are {text} ({out}/card.html says what was "
            "left out); check the source, or set release: null"
        )
    print(f"prepare {manifest['name']}: {text}")
