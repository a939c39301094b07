"""Model files: what a network is, what it was trained for, and its weights, in one safe file.

Files hold tensors and plain values only and are read with `weights_only=True`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from dxai.models.blocks import default_format
from dxai.models.classifiers import Exported, build_classifier, rescaled
from dxai.models.decomposer import Decomposer
from dxai.paths import MODEL, SNAPSHOTS
from dxai.utils.files import atomic


class ModelError(ValueError):
    """A model file that cannot be used; the message names the file and says why."""


def save_classifier(path: Path | str, network: nn.Module, info: dict[str, Any]) -> None:
    """Write a classifier.

    `info` holds `arch`, `options`, `channels`, `class_names`, `image_size`, `value_range`,
    `profile`, and whatever else should be known of the network.
    """
    write_tensors(path, {"kind": "classifier", "info": info, "state": network.state_dict()})


def load_classifier(path: Path | str | IO[bytes]) -> tuple[nn.Module, dict[str, Any]]:
    """Read a classifier: the network, frozen and in eval mode, and its info.

    `path` is a model file, its folder, or an open file.

    Raises
    ------
    ModelError
        If the file is no classifier or its weights do not fit.
    """
    return _classifier(_load(path, "classifier"), path)


def save_decomposer(
    path: Path | str,
    decomposer: Decomposer,
    info: dict[str, Any],
    classifier: nn.Module,
    classifier_info: dict[str, Any],
) -> None:
    """Write a decomposition together with the classifier that it explains.

    `decomposer` has the averaged weights; `info` holds `settings` (constructor arguments of
    `Decomposer`), `seed`, `steps`, `profile`, `class_names`, ...
    """
    write_tensors(
        path,
        {
            "kind": "decomposition",
            "info": info,
            "state": decomposer.state_dict(),
            "classifier": {"info": classifier_info, "state": classifier.state_dict()},
        },
    )


def load_decomposer(
    path: Path | str,
) -> tuple[Decomposer, dict[str, Any], nn.Module, dict[str, Any]]:
    """Read a decomposition: network, info, the classifier it explains, and that one's info.

    Raises
    ------
    ModelError
        If the file is no decomposition or its weights do not fit.
    """
    content = _load(path, "decomposition")
    try:
        decomposer = Decomposer(**content["info"]["settings"])
        decomposer.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: written for other settings: {error}") from None
    classifier, classifier_info = _classifier(content["classifier"], path)
    return freeze(decomposer), content["info"], classifier, classifier_info


def load_snapshots(folder: Path | str) -> Iterator[tuple[int, Decomposer]]:
    """A decomposition at each step of its training that was kept, the last one last.

    Raises
    ------
    ModelError
        If a file is missing or its weights do not fit.
    """
    folder = Path(folder)
    earlier = _load(folder / SNAPSHOTS, "snapshots")["steps"]
    decomposer, info, _, _ = load_decomposer(folder)
    last = copy.deepcopy(decomposer.state_dict())
    for step, state in [*sorted(earlier.items()), (info["training"]["steps"], last)]:
        try:
            decomposer.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"{folder}: step {step} has other settings: {error}") from None
        yield step, decomposer


def freeze(network: nn.Module) -> Any:
    """Eval mode, and no gradients for the weights; returns `network`."""
    return network.eval().requires_grad_(False)


def write_tensors(path: Path | str, content: dict[str, Any]) -> None:
    """`torch.save`, atomically; the same content gives the same bytes.

    Raises
    ------
    OSError
        If it cannot be written; `path` is then as it was.
    """
    with atomic(path) as temporary:
        try:
            with temporary.open("wb") as file:  # torch would write a file's name into it
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch makes the second of some full disks
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OSError(f"{path}: cannot be written: {reason}") from None


def _load(path: Path | str | IO[bytes], kind: str) -> dict[str, Any]:
    if isinstance(path, str | Path):
        path = Path(path)
        if path.is_dir():
            path = path / MODEL
        if not path.is_file():
            raise ModelError(f"{path}: no such model file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ModelError(f"{path}: not a model file: {error}") from None
    found = content.get("kind") if isinstance(content, dict) else None
    if found != kind:
        raise ModelError(f"{path}: holds {found or 'something else'}, not a {kind}")
    return content


def _classifier(
    content: dict[str, Any], path: Path | str | IO[bytes]
) -> tuple[nn.Module, dict[str, Any]]:
    info, state = content["info"], content["state"]
    value_range = info.get("network_range", (-1.0, 1.0))
    try:
        if info["arch"] == "torch.export":
            program = next(value for name, value in state.items() if name.endswith("program"))
            return freeze(default_format(rescaled(Exported(program), value_range))), info
        network = build_classifier(
            info["arch"],
            info["channels"],
            len(info["class_names"]),
            info["image_size"],
            value_range=value_range,
            **info["options"],
        )
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: written for other settings: {error}") from None
    return freeze(network), info
