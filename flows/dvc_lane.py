"""Bring one target after the other up to date with DVC: the program of a lane (`flows.lanes`).

Standard input names the targets, a line each. A line that starts with NUL follows what DVC and the
stage print, with DVC's exit code. DVC takes a second to load, which an item would pay for.

After each item DVC reads and writes all of dvc.lock in a way that keeps comments, of which that
file has none: for the 48 items of `quick` 1.4 s of a core on average, and 3 s for the last.
`modify_lock` takes a fifth of that.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from dvc import dvcfile
from dvc.cli import main
from ruamel.yaml import YAML

INTERRUPTED = 252
"""DVC's exit code after Ctrl-C."""
modify_other = dvcfile.modify_yaml
"""What DVC changes its files with."""


def modify_yaml(path: str, fs: Any = None) -> AbstractContextManager[dict[str, Any]]:
    """Take the place of DVC's own function."""
    return modify_lock(path) if dvcfile.is_lock_file(path) else modify_other(path, fs)


@contextmanager
def modify_lock(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the content of a dvc.lock, and write what the block has made of it, in its order."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    # Of these DVC makes its entries; they would become lists with a tag.
    yaml.representer.add_representer(OrderedDict, type(yaml.representer).represent_dict)
    lock = Path(path)
    content = yaml.load(lock.read_bytes()) or {} if lock.exists() else {}
    yield content
    with lock.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def work() -> None:
    # A stage inherits standard input, and must not read the names of targets.
    names = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    dvcfile.modify_yaml = modify_yaml
    for name in iter(names.readline, ""):
        code = main(["--wait-for-lock", "repro", "--single-item", name.strip()])
        sys.stderr.flush()
        print(f"\n\0{code}", flush=True)
        if code == INTERRUPTED:
            break


if __name__ == "__main__":
    work()
