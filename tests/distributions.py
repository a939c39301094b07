"""The distributions that a release consists of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def project_files(*folders: str) -> list[str]:
    """Return the paths of the project's files, those not yet added to git as well."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist from a copy of the project, the wheel from the sdist, as `build` does."""
    for name in project_files("dxai", "docs", ":(glob)*"):
        target = folder / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    (folder / "dist").mkdir()
    code = "from setuptools import build_meta; build_meta.build_sdist('../dist')"
    run([sys.executable, "-c", code], folder / "copy")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder / "dist")]
    run([sys.executable, "-m", "pip", "wheel", "-q", *options, str(sdist)], folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
