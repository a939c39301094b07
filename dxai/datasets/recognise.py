"""Recognition of a source's layout by the names of its files."""

from __future__ import annotations

from collections.abc import Collection

from dxai.datasets.base import DataError
from dxai.datasets.layouts.class_folders import is_image
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import Source

OWN = "folder"
"""The layout that takes any user's folders; those of a release go before it."""


def recognise(source: Source) -> list[str]:
    """Return the layouts that fit a source: that of a release before `folder`.

    No layout, or those of two releases, raise `DataError`, which lists what was looked for.
    """
    names = [file.name for file in source.files()]
    found = fitting(names)
    if len(found) - (OWN in found) > 1:
        several = " and ".join(f"{name} ({LAYOUTS[name].looks_for})" for name in found[:2])
        raise DataError(f"{source.name} fits the layouts {several}; choose one with --layout")
    if found:
        return found
    wanted = "; ".join(f"{n}: {layout.looks_for}" for n, layout in LAYOUTS.items() if layout.fits)
    tables = [name for name in names if name.lower().endswith(".csv")]
    hint = f"; if {tables[0]} lists the images, name that file" if tables else ""
    folders = sorted({name.partition("/")[0] for name in names if "/" in name and is_image(name)})
    if len(folders) > 1:
        some = ", ".join(folders[:3])
        hint += (
            f"; if its folders ({some}) are classes, move them to train/, and some images to test/"
        )
    raise DataError(
        f"{source.name}: none of its {len(names)} files fits a layout{hint}; looked for {wanted}"
    )


def fitting(names: Collection[str]) -> list[str]:
    """Return the layouts that fit these names of files, `folder` last."""
    fits = [name for name, layout in LAYOUTS.items() if layout.fits and layout.fits(names)]
    return sorted(fits, key=lambda name: name == OWN)
