"""Symbolic links from the project to what lies outside of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def inside(path: Path | str, root: Path) -> str | None:
    """Return a path relative to the folder `root` that holds it; None if it lies outside.

    Links below `root` are kept, so that what they lead to counts as inside.
    """
    for resolved in (os.path.abspath, os.path.realpath):
        relative = os.path.relpath(resolved(path), resolved(root))
        if relative != os.pardir and not relative.startswith(os.pardir + os.sep):
            return relative
    return None


def check_link(link: Path, target: Path) -> None:
    """Raise `FileExistsError` if `link` exists and does not lead to `target`."""
    if link.is_symlink():
        if os.path.realpath(link) != os.path.realpath(target):
            raise FileExistsError(
                f"{link} is a link to {os.readlink(link)}, not to {target}; remove it, or choose "
                "another name"
            )
    elif link.exists():
        raise FileExistsError(f"{link} exists already; remove it, or choose another name")


@contextlib.contextmanager
def linked(links: Mapping[Path, Path]) -> Iterator[None]:
    """Make symbolic links, new name to target; those made are removed if the block fails."""
    for link, target in links.items():
        check_link(link, target)
    made = [link for link in links if not link.is_symlink()]
    try:
        for link in made:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(links[link]))
        yield
    except BaseException:
        for link in made:
            link.unlink(missing_ok=True)
        raise
