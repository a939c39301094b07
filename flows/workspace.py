"""The folder of a run: one run at a time, since DVC's outputs have one owner, and enough space."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dxai.paths import HERE
from dxai.utils.files import locked

POLL_SECONDS = 1.0
WRITTEN = (
    *(HERE.work, HERE.prepared, HERE.artifacts, HERE.results),
    *(".dvc/tmp", tempfile.gettempdir()),
)
"""Folders that a run writes to, besides DVC's cache."""
MIN_FREE = 256 << 20
"""Minimum free bytes in each, more than the profile `smoke` produces."""


class NoRoom(OSError):
    """A folder is not writable or too full, found before anything was computed for it."""


@contextmanager
def exclusive(name: str, log: Callable[[str], None]) -> Iterator[None]:
    """Lock the folder for one run; wait while another has it, and log its name."""
    logged = ""
    while True:
        with locked(HERE.run_lock) as file:
            if file is not None:
                file.truncate(0)
                file.write(name)
                file.flush()
                yield
                file.truncate(0)
                return
        # The file is empty for a moment when a run begins or ends.
        if (other := HERE.run_lock.read_text()) not in ("", logged):
            logged = other
            log(f"waiting until {other}, which uses this folder, has ended")
        time.sleep(POLL_SECONDS)


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
