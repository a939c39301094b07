"""Names of classes and categories that are meant to be the same but are spelt differently."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def class_name(text: str) -> str:
    """Return a name in Unicode's composed form (NFC), with single spaces and none at its ends.

    Names that differ in nothing else look the same and are one class.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(name: str) -> str:
    """Return a name without what distinguishes `Small_Vehicle` from `small-vehicle`.

    Case, compatibility forms and invisible characters are ignored; spaces, underscores and hyphens
    are the same.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return re.sub(r"[\s_-]+", "-", visible).strip("-") or name


def spelling_notes(names: Iterable[str]) -> tuple[str, ...]:
    """Remark on classes whose names differ only in spelling; they stay separate."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        found[fold(name)].append(name)
    return tuple(
        f"the names of the classes {' and '.join(map(repr, same))} differ only in spelling"
        for same in found.values()
        if len(same) > 1
    )


def listed(names: Iterable[str], most: int = 5) -> str:
    """Join the first names: `a, b, c and 2 more`; `nothing` if there are none."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more or "nothing"
