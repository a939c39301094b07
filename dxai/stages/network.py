"""Hash a file that a classifier comes from, to rerun what depends on it: DVC stage `network`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dxai.config.params_file import load_params
from dxai.config.settings import choose
from dxai.paths import HERE
from dxai.stages import run_stage
from dxai.utils.files import read_json, sha256, write_json


def main(classifier: str, file: str) -> None:
    """Write artifacts/networks/<classifier>/<file>.json: SHA-256 of the file, or of a folder's.

    It is `{}` if the classifier does not come from this file. Those of files that no classifier
    comes from any more are removed: DVC leaves them there, and `classifier` depends on the folder.
    """
    params = load_params()
    choose("file", file, params.network_files)
    out = HERE.network(classifier, file)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_others(classifier, params.network_files)
    used = file in params.classifier_spec(classifier).files
    write_json(out, {str(path): sha256(path) for path in _files(Path(file))} if used else {})


def hashes(classifier: str, files: Iterable[str]) -> dict[str, str]:
    """Return what this stage found: SHA-256 by the path of every file of a classifier.

    `files` are those of its entry.
    """
    found: dict[str, str] = {}
    for path in sorted(HERE.network(classifier, file) for file in files):
        if path.exists():  # else the stage has not run, as for the twin of `joint`
            found.update(read_json(path))
    return found


def _remove_others(classifier: str, files: Iterable[str]) -> None:
    """Remove what this stage wrote about files that are not in the list."""
    folder = HERE.networks / classifier
    listed = {HERE.network(classifier, file) for file in files}
    for path in folder.rglob("*.json"):
        if path not in listed and path.is_file():
            path.unlink(missing_ok=True)  # another item of the stage may be removing it, too


def _files(path: Path) -> list[Path]:
    """List a file, or all files of a folder but those that Python compiles."""
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return [file for file in found if "__pycache__" not in file.parts]


if __name__ == "__main__":
    run_stage(main)
