"""Whether what DVC believes to have is still what it was: bytes change on disks, dates do not."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(".dvc/cache/files/md5")


def check(say: Callable[[str], None], root: Path | str = ".") -> list[str]:
    """Hash every object of DVC's cache and every output, and remove those that are damaged.

    DVC hashes a file anew only if its size or date has changed. What is removed here, it restores
    from its cache, or makes again.

    Returns
    -------
    list of str
        Paths of what was damaged, as told to `say`.
    """
    root = Path(root)
    damaged = []
    for path in sorted((root / CACHE).glob("*/*")):
        if _md5(path) != path.parent.name + path.name.removesuffix(".dir"):
            damaged.append(str(path.relative_to(root)))
            path.unlink()
    for out, wanted in _outputs(root):
        path = root / out
        if path.exists() and (_md5_of_folder(path) if path.is_dir() else _md5(path)) != wanted:
            damaged.append(out)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in damaged:
        say(f"{name} is damaged: removed, to be restored or made again")
    return damaged


def _outputs(root: Path) -> Iterator[tuple[str, str]]:
    """Path and MD5 of each output that DVC has recorded."""
    import yaml

    lock = root / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    for stage in stages.values():
        for out in stage.get("outs", []):
            yield out["path"], out["md5"].removesuffix(".dir")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of_folder(folder: Path) -> str:
    """As DVC hashes a folder: the list of its files with their hashes, as JSON."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = sorted((path.relative_to(folder).parts, path) for path in files)
    listed = [{"md5": _md5(path), "relpath": "/".join(parts)} for parts, path in named]
    content = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
