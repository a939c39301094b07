"""Networks of the user: which code may be imported, and how it is found."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from dxai.utils.errors import one_line


def is_named(arch: str, modules: Iterable[str]) -> bool:
    """Whether the import path `arch` is one of `modules`, or in one of these packages."""
    module = arch.partition(":")[0]
    return any(name in (arch, module) or module.startswith(f"{name}.") for name in modules)


def import_network(path: str, built_in: Iterable[str]) -> Callable[..., nn.Module]:
    """Import `package.module:name`, a class of networks or a function that returns one.

    Modules are looked for in the working folder first, and then where Python looks. Afterwards
    the working folder comes last there, for what the network imports when it runs. Raises
    `ValueError`, in one line, if there is none, it fails, or it is anything else: neither a
    subclass of nn.Module nor a function that the module itself defines.
    """
    module_name, _, name = path.partition(":")
    if not name:
        valid = ", ".join(sorted(built_in))
        raise ValueError(
            f"classifier: unknown arch {path!r}; valid are {valid}, or package.module:name"
        )
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"classifier {path}: Python's own {module_name} holds no networks")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        missing = isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name)
        reason = (
            f"no module {error.name}, neither in {folder} nor installed"
            if isinstance(error, ModuleNotFoundError) and missing
            else f"its import fails: {type(error).__name__}: {one_line(error)}"
        )
        raise ValueError(f"classifier {path}: {reason}") from None
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)
    if not hasattr(module, name):
        valid = ", ".join(n for n, v in vars(module).items() if _makes_networks(v, module_name))
        raise ValueError(f"classifier {path}: the module has no {name}; it has {valid or 'none'}")
    found = getattr(module, name)
    if not _makes_networks(found, module_name):
        raise ValueError(
            f"classifier {path}: {name} is neither a subclass of torch.nn.Module nor a function "
            f"that {module_name} defines"
        )
    return found


def _makes_networks(value: Any, module: str) -> bool:
    if inspect.isclass(value):
        return issubclass(value, nn.Module)
    home = getattr(value, "__module__", None) or ""
    return inspect.isfunction(value) and (home == module or home.startswith(f"{module}."))


def _parents(module: str) -> list[str]:
    """Return a module's name and those of the packages that it is in."""
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
