"""Kinds of files that hold a network, told apart without loading them."""

from __future__ import annotations

import zipfile
from pathlib import Path


def arch_of(path: Path) -> str:
    """Return the `arch` of a file that holds a whole network: ``torch.export`` or ``torchscript``.

    Any other file raises a `ValueError` that says how to name it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = ["/" + name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        names = []
    if any(name.startswith(("/archive_format", "/models/")) for name in names):
        return "torch.export"
    if any(name.startswith("/code/") for name in names):
        return "torchscript"
    if path.suffix == ".py":
        module = ".".join(path.with_suffix("").parts)
        raise ValueError(f"{path}: name the class or function in it, {module}:NAME")
    raise ValueError(
        f"{path}: no file of torch.export or TorchScript; for a file of weights, name the network, "
        f"package.module:name, and add --weights {path}"
    )
