"""Pages of explanations: each image with a slider for beta, in files that need nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dxai.reporting.html.environment import environment
from dxai.reporting.html.viewer import STEPS, Explanation, make_view, meanings
from dxai.utils.files import atomic

PAGE_BYTES = 8 << 20
"""A page ends before its pictures exceed this size, unless it has one image only."""
GENERATOR = '<meta name="generator" content="dxai">'
"""Tells a page of ours from another file of the same name."""

Tables = Mapping[str, Sequence[Sequence[str]]]
"""Captions to rows of text; the first row has the headings."""


def explanation_page(
    explanations: Iterable[Explanation],
    class_names: Sequence[str],
    title: str = "Explanations",
    verdict: Sequence[str] = (),
    tables: Tables | None = None,
) -> str:
    """Build one self-contained HTML page: each image with a slider that removes its part.

    Parameters
    ----------
    explanations : iterable of Explanation
        In the order of the page. A 256 px RGB image takes about 0.3 MB and as much for each of its
        parts; larger ones are reduced. `write_pages` bounds the size for any number of images.
    class_names : sequence of str
        The c classes in the order of `Removal.probabilities`.
    title : str
        The page's heading.
    verdict : sequence of str
        Paragraphs between the heading and the images.
    tables : mapping, optional
        Tables after the images: captions to rows of text, the first with the headings.

    Returns
    -------
    str
        The page. It loads nothing, and its policy lets a browser run only the script of the slider.
    """
    views = [make_view(one, class_names) for one in explanations]
    return _page(views, title, verdict, tables or {})


def write_pages(
    explanations: Iterable[Explanation],
    path: Path,
    class_names: Sequence[str],
    title: str = "Explanations",
    verdict: Sequence[str] = (),
    tables: Tables | None = None,
) -> bool:
    """Write as many pages of at most `PAGE_BYTES` as the explanations need: `path`, then `stem-2`.

    Pages lead to each other. A page is written as soon as it is full, and the last one also when
    `explanations` raises, so that nothing found is lost. Returns whether there was any explanation;
    without one nothing is written. For the other parameters see `explanation_page`; the verdict
    and the tables are on the first page.

    Raises
    ------
    FileExistsError
        If `path` is a page that was not written by this function.
    """
    if path.exists() and not _is_ours(path):
        raise FileExistsError(
            f"{path}: found a file that dxai did not write; move it, or choose another folder"
        )
    views: list[dict[str, Any]] = []
    number = size = 0

    def write(more: bool) -> None:
        nonlocal number, size
        number += 1
        links = {"Previous page": _numbered(path, number - 1).name} if number > 1 else {}
        links |= {"Next page": _numbered(path, number + 1).name} if more else {}
        first = number == 1
        page = _page(views, title, verdict if first else (), tables or {} if first else {}, links)
        with atomic(_numbered(path, number)) as temporary:
            temporary.write_text(page, encoding="utf-8")
        views.clear()
        size = 0

    try:
        for one in explanations:
            view = make_view(one, class_names)
            if views and size + _size(view) > PAGE_BYTES:
                write(more=True)
            views.append(view)
            size += _size(view)
    finally:
        if views:
            write(more=False)
    return number > 0


def _is_ours(path: Path) -> bool:
    """Whether a page was written by `write_pages`."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return GENERATOR in file.read(2000)


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def _size(view: dict[str, Any]) -> int:
    """Return the bytes of a view's pictures on the page."""
    pictures = [view["picture"], *(picture for _, picture in view["heatmaps"])]
    texts = [view["data"]["image"], *(part["pixels"] for part in view["data"]["parts"])]
    return sum(map(len, texts)) + sum(map(len, pictures)) * 4 // 3


def _page(
    views: Sequence[dict[str, Any]],
    title: str,
    verdict: Sequence[str],
    tables: Tables,
    links: Mapping[str, str] | None = None,
) -> str:
    return (
        environment()
        .get_template("explanation.html.jinja")
        .render(
            views=views,
            title=title,
            verdict=verdict,
            tables=tables,
            links=links or {},
            generator=GENERATOR,
            steps=STEPS,
            meanings=meanings(views),
        )
    )
