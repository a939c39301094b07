"""Model files: a network's weights, architecture and training metadata in one safe file.

They hold only tensors and plain values and are read with `weights_only=True`.
"""

from __future__ import annotations

import copy
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from dxai.config.schema import ClassifierSpec
from dxai.models.classifiers import FILES, build_classifier
from dxai.models.decomposer import Decomposer
from dxai.models.shared_files import WEIGHTS, file_of, read_folder, write_folder
from dxai.models.user_code import import_network, is_named
from dxai.models.weights import first_sentence
from dxai.paths import MODEL, SNAPSHOTS
from dxai.utils.files import atomic


class ModelError(ValueError):
    """An unusable model file; the message names the file and the reason."""


INSIDE = MODEL
"""The `weights` of a network whose program is in the model file."""


def adapter_info(spec: ClassifierSpec) -> dict[str, Any]:
    """Return what an info needs beside `arch`, `options` and `network_range` to rebuild a network.

    Empty, if the network is used as it is.
    """
    names = ("mean", "std", "size", "class_names", "field", "outputs", "activation")
    fields = type(spec).model_fields
    changed = {n: getattr(spec, n) for n in names if getattr(spec, n) != fields[n].default}
    return {"adapter": json.loads(json.dumps(changed))} if changed else {}


def save_classifier(path: Path | str, network: nn.Module, info: dict[str, Any]) -> None:
    """Write a classifier.

    Parameters
    ----------
    path : path
        The file to write.
    network : nn.Module
        As built by `build_classifier`.
    info : dict
        `arch`, `options`, `channels`, `class_names`, `image_size`, `value_range`, `network_range`,
        what `adapter_info` returns, `profile`, and any other metadata.
    """
    write_tensors(path, {"kind": "classifier", "info": info, "state": network.state_dict()})


def load_classifier(
    path: Path | str | IO[bytes], modules: str | Iterable[str] = ()
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a classifier, frozen and in eval mode, and its info.

    Parameters
    ----------
    path : path or open file
        A model file, or its folder.
    modules : str or iterable of str
        Modules, packages or import paths of the user that may be imported for it. Naming means
        trusting. A module or package covers its networks, subclasses of nn.Module; a function,
        which is called with arguments from the file, is called only if its import path
        `package.module:name` is named. A file alone decides nothing: without names only built-in
        architectures are built.

    Raises
    ------
    ModelError
        If the file is not a classifier, its weights do not fit, or it needs another module.
    """
    return _classifier(_load(path, "classifier"), path, modules)


def save_decomposer(
    path: Path | str,
    decomposer: Decomposer,
    info: dict[str, Any],
    classifier: nn.Module,
    classifier_info: dict[str, Any],
) -> None:
    """Write a decomposition together with the classifier that it explains.

    Parameters
    ----------
    path : path
        The file to write.
    decomposer : Decomposer
        With the averaged weights.
    info : dict
        `settings` (constructor arguments of `Decomposer`), `seed`, `steps`, `profile`,
        `class_names`, ...
    classifier, classifier_info
        As for `save_classifier`.
    """
    write_tensors(path, _decomposition(decomposer, info, classifier, classifier_info))


def share_decomposer(
    folder: Path,
    decomposer: Decomposer,
    info: dict[str, Any],
    classifier: nn.Module,
    classifier_info: dict[str, Any],
    **settings: int,
) -> None:
    """Write what `save_decomposer` writes as `config.json` and `model.safetensors`.

    `settings` are those of the explainer, `seed` and `latents`; errors those of `write_folder`.
    """
    write_folder(folder, _decomposition(decomposer, info, classifier, classifier_info), settings)


def _decomposition(
    decomposer: Decomposer,
    info: dict[str, Any],
    classifier: nn.Module,
    classifier_info: dict[str, Any],
) -> dict[str, Any]:
    return {
        "kind": "decomposition",
        "info": info,
        "state": decomposer.state_dict(),
        "classifier": {"info": classifier_info, "state": classifier.state_dict()},
    }


def load_decomposer(
    path: Path | str, modules: str | Iterable[str] = ()
) -> tuple[Decomposer, dict[str, Any], nn.Module, dict[str, Any]]:
    """Read a decomposition, its info, the classifier it explains, and the classifier's info.

    `path` is a file, or a folder with model.pt, or with config.json and model.safetensors.
    `modules` and the errors are those of `load_classifier`.
    """
    content = _load(path, "decomposition")
    info, state, explained = _parts(content, path, "info", "state", "classifier")
    try:
        decomposer = Decomposer(**info["settings"])
        decomposer.load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: written for other settings: {_mismatch(error)}") from None
    classifier, classifier_info = _classifier(explained, path, modules)
    return freeze(decomposer), info, classifier, classifier_info


def load_snapshots(
    folder: Path | str, modules: str | Iterable[str] = ()
) -> Iterator[tuple[int, Decomposer]]:
    """Yield the step and the network of each snapshot of a training run, the final one last.

    `modules` are those of `load_classifier`. A missing file, or weights that do not fit, raise
    `ModelError`.
    """
    folder = Path(folder)
    content = _load(folder / SNAPSHOTS, "snapshots")
    (earlier,) = _parts(content, folder / SNAPSHOTS, "steps")
    decomposer, info, _, _ = load_decomposer(folder, modules)
    last = copy.deepcopy(decomposer.state_dict())
    for step, state in [*sorted(earlier.items()), (info["training"]["steps"], last)]:
        try:
            decomposer.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(
                f"{folder}: step {step} has other settings: {_mismatch(error)}"
            ) from None
        yield step, decomposer


def freeze(network: nn.Module) -> Any:
    """Put a network into eval mode without weight gradients, and return it."""
    return network.eval().requires_grad_(False)


def write_tensors(path: Path | str, content: dict[str, Any]) -> None:
    """Run `torch.save` atomically; equal content gives equal bytes.

    An OSError leaves `path` unchanged.
    """
    with atomic(path) as temporary:
        try:
            with temporary.open("wb") as file:  # given a path, torch would store its name
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch raises the latter for some full disks
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OSError(f"{path}: cannot be written: {reason}") from None


def _mismatch(error: Exception) -> str:
    """Return, in a line, the beginning of an error that may list every key of a network."""
    return textwrap.shorten(str(error), 300, placeholder=" ..")


def _load(path: Path | str | IO[bytes], kind: str) -> dict[str, Any]:
    if isinstance(path, str | Path):
        path = file_of(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such model file")
    if isinstance(path, Path) and path.name == WEIGHTS:
        try:
            content = read_folder(path.parent)
        except (ValueError, OSError) as error:
            raise ModelError(str(error)) from None
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for foreign files
            raise ModelError(f"{path}: not a model file: {first_sentence(error)}") from None
    found = content.get("kind") if isinstance(content, dict) else None
    if found != kind:
        raise ModelError(f"{path}: holds {found or 'something else'}, not a {kind}")
    return content


def _parts(
    content: dict[str, Any], path: Path | str | IO[bytes], *names: str
) -> list[dict[str, Any]]:
    """Return the dictionaries in a file, which may be anybody's."""
    if lacking := [name for name in names if not isinstance(content.get(name), dict)]:
        raise ModelError(f"{path}: not a model file of dxai: it lacks {', '.join(lacking)}")
    return [content[name] for name in names]


def _check_named(arch: str, modules: str | Iterable[str], path: Path | str | IO[bytes]) -> None:
    """Raise `ModelError` unless the user trusts the code `arch` of a file."""
    modules = [modules] if isinstance(modules, str) else list(modules)
    if not is_named(arch, modules):
        reason = "which dxai does not import unasked; if you trust it"
    elif arch not in modules and not inspect.isclass(import_network(arch, ())):
        reason = "a function, which the name of its module or package does not cover; if you trust "
        reason += "it with the arguments in the file"
    else:
        return
    raise ModelError(
        f"{path}: its classifier is the code {arch}, {reason}, name it: `--module {arch}`, or "
        f"modules=[{arch!r}]"
    )


def _classifier(
    content: dict[str, Any], path: Path | str | IO[bytes], modules: str | Iterable[str]
) -> tuple[nn.Module, dict[str, Any]]:
    info, state = _parts(content, path, "info", "state")
    try:
        arch, shape = info["arch"], (info["channels"], info["class_names"], info["image_size"])
        if ":" in arch:
            _check_named(arch, modules, path)
        spec = ClassifierSpec(
            arch=arch,
            options=info["options"],
            weights=INSIDE if arch in FILES else None,
            value_range=info.get("network_range"),
            **info.get("adapter", {}),
        )
        if arch in FILES:
            program = next(value for name, value in state.items() if name.endswith("program"))
            return freeze(build_classifier(spec, *shape, program)), info
        network = build_classifier(spec, *shape)
        network.load_state_dict(state)
    except ModelError:
        raise
    except (AttributeError, KeyError, RuntimeError, StopIteration, TypeError) as error:
        raise ModelError(f"{path}: written for other settings: {_mismatch(error)}") from None
    except ValueError as error:  # that of ClassifierSpec has several lines
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from None
    return freeze(network), info
