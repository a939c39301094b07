"""A folder with the project's code and data, in which a run or its repetition computes.

The code is a clone of its own, with the uncommitted changes; what git does not have, such as images
and weights, is linked from the project's folder.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from dxai.config.params_file import replace_sources
from dxai.paths import DVC_LOCK, HERE, PARAMS, RUN, Paths
from dxai.tracking import provenance
from dxai.utils.files import atomic_folder

DATA = Path(provenance.NOT_CODE)
"""Folder for raw images."""


def copy(root: Path, folder: Path) -> list[str]:
    """Make a workspace of a project as it is now, with its .work; `folder` must not exist.

    Without a commit, or where git does not trust the project, all files that git would know are
    copied. Returns a line for each setting that differs. Raises `ValueError` if data that
    params.yaml names is missing.
    """
    root = root.resolve()
    with atomic_folder(folder) as space:
        if provenance.problem(root):
            names = provenance.files(root)
        else:
            patch, left_out = provenance.uncommitted(root)
            file = space.with_name(f"{space.name}.patch")
            file.write_bytes(patch)
            try:
                provenance.checkout(root, "HEAD", file if patch else None, space)
            finally:
                file.unlink()
            names = [name for name in (PARAMS, DVC_LOCK) if (root / name).exists()]
            for name in left_out:
                top = Path(name).parts[0]
                whole = (root / top).is_dir() and not (space / top).exists()  # a folder of data
                brought = Path(top) if whole else Path(name)
                _bring(root / brought, space / brought, link=brought.is_relative_to(DATA))
        for name in names:
            (space / name).unlink(missing_ok=True)
            _bring(root / name, space / name, link=False)
        ignored = [HERE.work, Path(RUN)]
        for path in (root / DATA).glob("*"):  # the rest is what git ignores
            if DATA / path.name != HERE.prepared:
                links = _bring(path, space / DATA / path.name, link=True)
                ignored += [link.relative_to(space) for link in links]
        Paths(root).work.mkdir(exist_ok=True)
        Paths(space).work.symlink_to(Paths(root).work)
        changed = _reach_sources(root, space)
        ignored += [Path(path) for path, _ in link_given(root, space)]
        if (space / ".git").exists():  # a pattern for folders would not hold for links to them
            lines = [re.sub(r"([*?\[\]\\ ])", r"\\\1", f"/{path}\n") for path in ignored]
            (space / ".git/info/exclude").write_text("".join(lines))
    return changed


def _reach_sources(root: Path, folder: Path) -> list[str]:
    """Let `source: ../photos` in a workspace lead to where it leads in the project."""
    params = yaml.safe_load((folder / PARAMS).read_text())
    given = {} if "run" in params else {k: v["source"] for k, v in params["datasets"].items()}
    moved = {
        name: _there(root, source)
        for name, source in given.items()
        if _leads_out(source) and not Path(source).is_absolute()
    }
    if moved:
        replace_sources(folder / PARAMS, moved)
    return [f"datasets.{name}.source: {given[name]} -> {moved[name]}" for name in moved]


def _leads_out(path: str) -> bool:
    """Whether a path is on this machine, and out of the folder that it is relative to."""
    first = Path(os.path.normpath(path)).parts[:1]
    return not _is_elsewhere(path) and first in ((os.pardir,), (os.sep,))


def _is_elsewhere(path: str) -> bool:
    """Whether a path means the same from everywhere, without being absolute."""
    return "://" in path or path.startswith("~") or "$" in path


def _bring(source: Path, target: Path, link: bool) -> list[Path]:
    """Link or copy what a workspace lacks; it may have a part of a folder. Returns what is new."""
    if source.is_dir() and target.is_dir() and not target.is_symlink():
        parts = (_bring(inner, target / inner.name, link) for inner in source.iterdir())
        return [path for part in parts for path in part]
    if os.path.lexists(target) or not os.path.lexists(source):
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    if link or source.is_dir():
        target.symlink_to(source.resolve())
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    return [target]


def link_given(root: Path, folder: Path) -> list[tuple[str, str]]:
    """Link the inputs that params.yaml names and git does not have; returns paths and purposes.

    They are data, weights, and a user's own modules. Raises `ValueError`, naming all that are
    missing.
    """
    params = settings(folder)
    needed: dict[str, str] = {}
    optional: dict[str, str] = {}
    for name, dataset in params["datasets"].items():
        source = Path(dataset["source"])
        if source.suffix.lower() == ".csv" and not (folder / source.parent).exists():
            source = source.parent  # with the images that the table names
        path = str(source) if "://" not in dataset["source"] else dataset["source"]
        needed[path] = f"the source of dataset {name}"
    for name, spec in (params["classifiers"] | params.get("joint", {})).items():
        if weights := spec.get("weights"):
            needed[weights] = f"the weights of classifier {name}"
        for file in spec.get("files") or []:
            needed.setdefault(file, f"a file of classifier {name}")
        module = str(spec.get("arch", "")).partition(":")
        if module[1]:
            top = module[0].split(".")[0]
            optional |= dict.fromkeys((f"{top}.py", top), f"the code of classifier {name}")
    linked, missing = [], []
    for path, what in (needed | optional).items():
        if _is_elsewhere(path) or (folder / path).exists():
            continue
        if not _leads_out(path) and (root / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).unlink(missing_ok=True)  # a dangling link
            (folder / path).symlink_to((root / path).resolve())
            linked.append((path, what))
        elif path in needed:
            missing.append(f"{path} ({what}) {_about_missing(root, path)}")
    if missing:
        remedy = f". Put it into {root}, and give the same command again"
        ours = any(line.endswith("missing") for line in missing)
        raise ValueError("; ".join(missing) + (remedy if ours else ""))
    return linked


def _about_missing(root: Path, path: str) -> str:
    if not _leads_out(path) or Path(path).is_absolute():
        return "is missing"
    return (
        f"leads out of the project, from another folder elsewhere: write {_there(root, path)}, or "
        "give a repetition --into a folder beside the project"
    )


def _there(root: Path, path: str) -> str:
    """Return the absolute path that a relative one is in the project."""
    return os.path.normpath(root / path)


def settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a workspace; earlier versions had them in the block `run`."""
    params = yaml.safe_load((folder / PARAMS).read_text())
    return params.get("run", params)
