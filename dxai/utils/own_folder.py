"""A folder for temporary files that belongs to the current user alone."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path


def own_folder() -> Path:
    """Return `dxai-<user id>` in the folder for temporary files, made if necessary.

    Programs that agree on one name in /tmp, as Prefect does, fail for the second user of a machine.
    Raises `PermissionError` if somebody else has made it.
    """
    folder = Path(tempfile.gettempdir())
    if folder.name == f"dxai-{os.getuid()}":  # a parent process has chosen it
        return folder
    folder /= f"dxai-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} belongs to another user; set TMPDIR to a folder of yours")
    return folder


def python_without_space() -> str:
    """Return this Python by a path without a space, which Ray's command lines do not quote.

    Raises `ValueError` if there is no folder to make such a path in.
    """
    executable = Path(sys.executable)
    if " " not in str(executable):
        return str(executable)
    prefix = executable.parent.parent
    link = own_folder() / f"python-{hashlib.sha256(os.fsencode(prefix)).hexdigest()[:12]}"
    if " " in str(link):
        raise ValueError(
            f"Ray cannot start {executable}, whose path has a space; set TMPDIR to a folder without"
        )
    if not link.is_symlink():
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(prefix)
        temporary.replace(link)
    return str(link / executable.relative_to(prefix))
