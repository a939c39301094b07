"""The page of an explainer: some images with the slider, the verdict, and tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dxai.datasets.in_memory import InMemoryImages
from dxai.explain.base import Explainer
from dxai.explain.decomposition import MOST_PIXELS, MOST_ROWS
from dxai.library.explainer import DXAI
from dxai.reporting.explanations import find_removals
from dxai.reporting.html import Explanation, write_pages
from dxai.reporting.html.explanation import Tables
from dxai.results.methods import label
from dxai.utils.progress import Progress

SHOWN, CLASSES = 8, 2
"""Images of a page, at least one of each class up to that number; classes to choose from."""


def write_page(
    explainer: DXAI,
    data: InMemoryImages,
    path: Path,
    title: str,
    verdict: Sequence[str] = (),
    tables: Tables | None = None,
    methods: Sequence[Explainer] = (),
    until: float = math.inf,
) -> Path:
    """Write a page of a few labelled images, and return its path; print progress.

    Heatmaps of `methods`, for the predicted class, are shown beside. No image is begun after the
    clock `time.monotonic` shows `until`, but for the first.
    """
    indices = data.spread(max(1, SHOWN // len(data.class_names)))[:SHOWN]
    shown = _explanations(explainer, data, indices, methods, until)
    write_pages(shown, path, data.class_names, title, verdict, tables)
    return path


def _explanations(
    explainer: DXAI,
    data: InMemoryImages,
    indices: Sequence[int],
    methods: Sequence[Explainer],
    until: float,
) -> Iterator[Explanation]:
    names, progress = data.class_names, Progress("explain", len(indices), unit="images")
    done, pixels = 0, data.image_size**2
    # As many at once as the projection takes: fewer take as long.
    for batch in data.batches(max(1, min(MOST_ROWS, MOST_PIXELS // pixels)), indices):
        predicted = explainer.logits(batch.images).argmax(1)
        removals = find_removals(explainer, batch.images, index=batch.index * 0, choices=CLASSES)
        maps = {}
        for method in methods:
            map_ = method.attribute(batch.images, predicted)
            _, heat, _ = next(method.by_sign(map_, batch.images))
            maps[label(method.name)] = heat.numpy()
        for i, found in enumerate(removals):
            yield Explanation(
                batch.ids[i],
                batch.images[i].numpy(),
                found,
                {f"{name}, {names[predicted[i]]}": maps[name][i] for name in maps},
                notes=[f"labelled {names[batch.labels[i]]}"],
            )
        done += len(batch.ids)
        progress.update(done)
        if time.monotonic() > until:
            return
