"""The workspace of a run: a folder with the code and data of its start, and enough space."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dxai.paths import DVC_LOCK, HERE, PARAMS, RUN
from dxai.tracking.workspace import copy
from dxai.utils.files import remove, write_json

WRITTEN = (
    *(HERE.work, HERE.prepared, HERE.artifacts, HERE.results),
    *(".dvc/tmp", tempfile.gettempdir()),
)
"""Folders that a run writes to, besides DVC's cache."""
MIN_FREE = 256 << 20
"""Minimum free bytes in each, more than the profile `smoke` produces."""


RECORD = (RUN, PARAMS, DVC_LOCK)
"""Files of a workspace that say what a run has made."""


class NoRoom(OSError):
    """A folder is not writable or too full, found before anything was computed for it."""


@dataclass
class Space:
    """The workspace of a run."""

    folder: Path
    project: Path
    remote: bool = False
    """Whether DVC has a remote."""
    changed: list[str] = field(default_factory=list)
    """Settings that differ from the project's, so that they mean the same."""
    keep: bool = False
    """Whether it stays when the run has ended."""
    keep_record: bool = False
    """Whether `RECORD` stays; `dxai clean` keeps in DVC's cache what its dvc.lock names."""


@contextmanager
def of_run(name: str, flow_run: str) -> Iterator[Space]:
    """Work in a new workspace during the block.

    The workspace is .work/runs/<name>-<start of the id>, where run.json says whose it is. It also
    stays if the block fails and there are outputs, but not if the run is cancelled.
    """
    project = Path.cwd()
    folder = project / HERE.runs / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}-{flow_run[:8]}"
    shutil.rmtree(folder, ignore_errors=True)  # the same run, started again
    changed = copy(project, folder)
    about = {"name": name, "flow_run": flow_run, "pid": os.getpid()}
    write_json(folder / RUN, about | {"state": "running"})
    os.chdir(folder)
    space = Space(folder, project, changed=changed)
    try:
        yield space
        write_json(folder / RUN, about | {"state": "completed"})
    except Exception:
        space.keep |= any(path.exists() for path in (HERE.prepared, HERE.artifacts, HERE.results))
        write_json(folder / RUN, about | {"state": "failed"})
        raise
    finally:
        os.chdir(project)
        if not space.keep:
            for path in folder.iterdir():
                if not (space.keep_record and path.name in RECORD):
                    remove(path)
            if not space.keep_record:
                folder.rmdir()


def check_room(folders: Iterable[Path | str]) -> None:
    """Raise `NoRoom`, naming the folder, unless each is writable and has enough free space."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            raise NoRoom(f"{folder} cannot be written to: {error.strerror}") from None
        if (free := shutil.disk_usage(folder).free) < MIN_FREE:
            needed = MIN_FREE >> 20
            raise NoRoom(f"{folder} has {free >> 20} MiB free; a run needs {needed} or more")
