"""The layouts of raw images by name, and the step from raw images to shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dxai.datasets.base import DataError, Layout
from dxai.datasets.folder import folder
from dxai.datasets.textures import textures
from dxai.datasets.writer import write_dataset
from dxai.params import Params, ParamsError, choose

LAYOUTS: dict[str, Layout] = {"folder": folder, "textures": textures}
"""What `layout` of a dataset may name."""


def prepare(name: str, params: Params, out: Path | str) -> dict[str, Any]:
    """Filter, split, crop and resize a dataset's raw images into shards.

    Parameters
    ----------
    name : str
        One of `params.datasets`.
    params : Params
        The run's settings.
    out : path
        The folder to write; it appears, or changes, only when every image was read.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ParamsError
        For an unknown dataset, layout or option.
    DataError
        For images that cannot be used.
    """
    dataset = params.dataset(name)
    layout = LAYOUTS[choose(f"dataset {name}: layout", dataset.layout, LAYOUTS)]
    about = {
        "name": name,
        "layout": dataset.layout,
        "channels": dataset.channels,
        "image_size": params.prepare.image_size,
    }
    try:
        listing = layout(dataset, params.prepare)
        for note in listing.notes:
            print(f"prepare {name}: {note}")
        return write_dataset(out, listing, about, params.prepare.shard_images)
    except (DataError, ParamsError) as error:
        raise type(error)(f"dataset {name}: {error}") from error
