"""The page of an explainer: some images with the slider, the verdict, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dxai.datasets.in_memory import InMemoryImages
from dxai.library.explainer import DXAI
from dxai.reporting.explanations import find_removals
from dxai.reporting.html import Explanation, write_pages
from dxai.reporting.html.explanation import Tables

SHOWN, CLASSES = 8, 2
"""Images of a page, at least one of each class up to that number; classes to choose from."""


def write_page(
    explainer: DXAI,
    data: InMemoryImages,
    path: Path,
    title: str,
    verdict: Sequence[str] = (),
    tables: Tables | None = None,
) -> Path:
    """Write a page of a few labelled images, and return its path."""
    indices = data.spread(max(1, SHOWN // len(data.class_names)))[:SHOWN]
    batch = data.batch(indices)
    removals = find_removals(explainer, batch.images, index=batch.index * 0, choices=CLASSES)
    shown = [
        Explanation(id, image.numpy(), found, notes=[f"labelled {data.class_names[label]}"])
        for id, image, label, found in zip(
            batch.ids, batch.images, batch.labels.tolist(), removals, strict=True
        )
    ]
    write_pages(shown, path, data.class_names, title, verdict, tables)
    return path
