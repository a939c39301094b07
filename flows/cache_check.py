"""Find corrupted files in DVC's cache and outputs, which a disk can damage without a new date."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from dxai.paths import Paths
from dxai.utils import dvc_files
from dxai.utils.files import remove


def check(log: Callable[[str], None], cache: Path, root: Path | str = ".") -> list[str]:
    """Hash every object of DVC's cache and every output, and remove damaged ones.

    DVC rehashes a file only if its size or date has changed; it restores a removed one from its
    cache, or reruns the stage. Returns the paths of the damaged ones, each also passed to `log`.
    """
    root = Path(root)
    damaged = []
    for path in sorted((cache / dvc_files.OBJECTS).glob("*/*")):
        if path.name.startswith("."):
            log(f"{path} was never finished: removed")
            path.unlink()
        elif _md5(path) != path.parent.name + path.name.removesuffix(".dir"):
            damaged.append(str(path))
            path.unlink()
    recorded = dvc_files.hashes(dvc_files.stages(Paths(root).dvc_lock), "outs")
    for (_, out), digest in recorded.items():
        path, wanted = root / out, digest.removesuffix(".dir")
        if path.exists() and (_md5_of_folder(path) if path.is_dir() else _md5(path)) != wanted:
            damaged.append(out)
            remove(path)
    for name in damaged:
        log(f"{name} is damaged: removed, to be restored or made again")
    return damaged


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of_folder(folder: Path) -> str:
    """Hash a folder as DVC does: the list of its files with their hashes, as JSON."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = sorted((path.relative_to(folder).parts, path) for path in files)
    listed = [{"md5": _md5(path), "relpath": "/".join(parts)} for parts, path in named]
    content = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
