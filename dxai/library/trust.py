"""The code of networks that a user has named, so that it need not be named again in this folder.

The list lies in the working folder, not in an explainer's: a file from elsewhere cannot add to it.
"""

from __future__ import annotations

from dxai.paths import HERE
from dxai.utils.files import read_json, write_json


def remember(arch: str) -> bool:
    """Trust the code of a network, ``package.module:name``, in the working folder from now on.

    Returns False if the folder takes no files, so that it has to be named again.
    """
    if ":" in arch and arch not in (known := trusted()):
        try:
            write_json(HERE.trusted, sorted([*known, arch]))
        except OSError:
            return False
    return True


def trusted() -> list[str]:
    """Return the import paths that were named here before."""
    try:
        found = read_json(HERE.trusted)
    except (OSError, ValueError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
