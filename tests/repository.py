"""Git, as somebody who may commit."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, and return what it prints; raises `CalledProcessError` if it fails."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
