"""Weights of a user's network: files in the wrappings that are met with, read without running code.

A wrapping that fits is taken and said; otherwise the error names what the keys have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys of a checkpoint under which the state dict is met."""
PREFIXES = ("module.", "model.", "net.", "network.")
"""Prefixes that DataParallel, Lightning and others put before every key."""
COMPILED = "_orig_mod."
"""Part of a key that `torch.compile` adds, at any depth."""
SHOWN = 3
"""Keys that a message names."""


def load_weights(network: nn.Module, path: str | Path, what: str) -> None:
    """Load a file of weights strictly and safely, and print in which wrapping it was.

    Raises `ValueError`, which names the file, if it does not load safely or does not fit `what`.
    """
    path = existing(path)
    state, wrapper = _unwrapped(read_tensors(path), path)
    wanted = network.state_dict().keys()
    needed = set(_needed(wanted))
    fitting = (c for c in _candidates(state) if set(_needed(c[0])) == needed)
    found, prefix, other = next(fitting, ({}, "", []))
    if not found:
        raise ValueError(f"{path}: does not fit {what}: {_mismatch(state.keys(), wanted)}")
    try:
        network.load_state_dict({k: v for k, v in found.items() if k in wanted})
    except RuntimeError:
        raise ValueError(f"{path}: does not fit {what}: {_shapes(found, network)}") from None
    said = [f"taken from its {wrapper!r}"] if wrapper else []
    said += [f"without the prefix {prefix!r}"] if prefix else []
    said += [f"{len(other)} others left out ({_some(other)})"] if other else []
    if said:
        print(f"{path}: weights {', '.join(said)}", flush=True)


def read_tensors(path: Path) -> Any:
    """Read a file of `torch.save` or safetensors without running code from it.

    Raises `ValueError`, which names the file, if it is neither.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(path.read_bytes())
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not a safetensors file: {first_sentence(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for foreign files
        raise ValueError(
            f"{path}: not a weights file that loads safely ({first_sentence(error)}); save only "
            "the weights: torch.save(network.state_dict(), file)"
        ) from None


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error; torch's go on with advice that is not safe."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0]


def existing(path: str | Path) -> Path:
    """Return the path of a file; raise FileNotFoundError if there is none."""
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path}: a folder; name the weights file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    return path


def _unwrapped(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a file, and the key that it stood under, if any."""
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}, not a state dict")
    if _is_state(content):
        return content, ""
    for key in WRAPPERS:
        if isinstance(content.get(key), dict) and _is_state(content[key]):
            return content[key], key
    states = [str(k) for k, v in content.items() if isinstance(v, dict) and _is_state(v)]
    raise ValueError(
        f"{path}: holds no state dict under {', '.join(WRAPPERS)}, but {_some(content)}"
        + (f"; a state dict stands under {_some(states)}: save that alone" if states else "")
    )


def _is_state(content: dict[Any, Any]) -> bool:
    tensors = [isinstance(value, Tensor) for value in content.values()]
    return bool(tensors) and all(tensors) and all(isinstance(key, str) for key in content)


def _candidates(state: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], str, list[str]]]:
    """Yield a state dict as it is and without prefixes, what was removed, and keys left out."""
    yield from _without_prefixes(state, "")
    removed = ""
    for part in (COMPILED, ".module."):  # torch.compile, and DataParallel inside a network
        if any(part in key for key in state):
            end = "." if part.startswith(".") else ""
            state, removed = {k.replace(part, end): v for k, v in state.items()}, removed + part
            yield from _without_prefixes(state, removed)


def _without_prefixes(
    state: dict[str, Tensor], removed: str
) -> Iterator[tuple[dict[str, Tensor], str, list[str]]]:
    other = list[str]()
    yield state, removed, other
    while prefix := next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None):
        other = other + [key for key in state if not key.startswith(prefix)]
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        removed += prefix
        yield state, removed, other


def _mismatch(found: Iterable[str], wanted: Iterable[str]) -> str:
    """Describe by their common prefix and a few of them how keys differ."""
    found, wanted = list(found), list(wanted)
    missing = [key for key in _needed(wanted) if key not in found]
    other = [key for key in found if key not in wanted]
    if len(missing) == len(list(_needed(wanted))):
        prefix = _common_prefix(found)
        begin = f" all begin with {prefix!r}" if prefix else " have no common prefix"
        return f"its {len(found)} keys{begin} ({_some(found)}); the network's are {_some(wanted)}"
    parts = [f"it lacks {len(missing)} ({_some(missing)})"] if missing else []
    parts += [f"the network has no {_some(other)} ({len(other)} keys)"] if other else []
    return "; ".join(parts)


def _common_prefix(keys: list[str]) -> str:
    """Return the modules that all keys begin with, with a dot at the end."""
    levels = zip(*(key.split(".")[:-1] for key in keys), strict=False)
    return "".join(
        f"{level[0]}." for level in takewhile(lambda names: len(set(names)) == 1, levels)
    )


def _shapes(found: dict[str, Tensor], network: nn.Module) -> str:
    wanted = network.state_dict()
    other = [k for k, v in found.items() if k in wanted and v.shape != wanted[k].shape]
    if not other:
        return "its values cannot be copied"
    key = other[0]
    more = f", and {len(other) - 1} others differ" if len(other) > 1 else ""
    return f"{key} is {tuple(found[key].shape)}, in the network {tuple(wanted[key].shape)}{more}"


def _needed(keys: Iterable[str]) -> Iterator[str]:
    """Yield the keys that a file must have; old ones lack the count of batches."""
    return (key for key in keys if not key.endswith("num_batches_tracked"))


def _some(keys: Iterable[Any]) -> str:
    keys = [str(key) for key in keys]
    return ", ".join(keys[:SHOWN]) + (", .." if len(keys) > SHOWN else "")
