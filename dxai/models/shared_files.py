"""Files of a shared explainer: `config.json` and `model.safetensors`, neither of which holds code.

Together they say what `model.pt` says: the first all plain values, the second all tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dxai.models.weights import existing, read_tensors
from dxai.paths import MODEL
from dxai.utils.files import atomic, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
"""Raised when an older reader would misread `config.json`."""
PLAIN = torch.contiguous_format
OWNERS = ("decomposer", "classifier")
"""First part of the name of each tensor: the network that it belongs to."""


def file_of(path: Path | str) -> Path:
    """Return the file with a model's weights: a file itself, or that of a folder.

    A folder has model.pt, or `WEIGHTS` beside `CONFIG`; if it has both, the former is taken.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    is_shared = (path / CONFIG).is_file() and not (path / MODEL).is_file()
    return path / (WEIGHTS if is_shared else MODEL)


def write_folder(folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write an explainer; the same explainer gives the same bytes.

    Parameters
    ----------
    folder : path
        Is created if missing; other files in it are left alone.
    content : dict
        As `dxai.models.serialization` writes it: `kind`, `info`, `state`, and of the `classifier`
        `info` and `state`.
    settings : dict
        With which the explainer is used: `seed`, `latents`.

    Raises
    ------
    ValueError
        In one line, for what neither JSON nor safetensors can hold; nothing is written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save

    config = {
        "library_name": "dxai",
        "format": FORMAT,
        "kind": content["kind"],
        "info": content["info"],
        "classifier": content["classifier"]["info"],
        "explainer": dict(settings),
    }
    states = dict(zip(OWNERS, (content["state"], content["classifier"]["state"]), strict=True))
    named = {f"{owner}.{key}": v for owner, state in states.items() for key, v in state.items()}
    if others := [name for name, value in named.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{folder}: {others[0]} is no tensor, so safetensors cannot hold it")
    try:
        json.dumps(config, sort_keys=True)
        # Tied weights, which share their memory, are refused unless they are copied.
        copies = {name: v.cpu().clone(memory_format=PLAIN) for name, v in named.items()}
        values = save(copies)
    except (TypeError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be written as JSON and safetensors: {error}") from None
    with atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(values)
    write_json(folder / CONFIG, config)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`, which may be anybody's.

    Raises `ValueError` or `OSError`, in one line, if it is missing, damaged or of another format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {WEIGHTS} alone does not say what it is of")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path}: format is {found!r}; this version of dxai reads {FORMAT}: "
            "update dxai, or share the explainer anew"
        )
    return config


def read_folder(folder: Path) -> dict[str, Any]:
    """Read the content that `write_folder` was given; errors are those of `read_config`."""
    config = read_config(folder)
    states: dict[str, dict[str, Tensor]] = {owner: {} for owner in OWNERS}
    for name, value in read_tensors(existing(folder / WEIGHTS)).items():
        owner, _, key = name.partition(".")
        if owner not in states:
            expected = " or ".join(f"{one}." for one in OWNERS)
            raise ValueError(f"{folder / WEIGHTS}: holds {name}; names begin with {expected}")
        states[owner][key] = value
    own, explained = states.values()
    content = {"kind": config.get("kind"), "info": config.get("info"), "state": own}
    return content | {"classifier": {"info": config.get("classifier"), "state": explained}}
