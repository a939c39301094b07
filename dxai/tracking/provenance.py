"""The code and the environment of a run: what is kept of them, and how both are had again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from dxai.paths import DVC_LOCK, PARAMS

ENVIRONMENT = "environment.txt"
PATCH = "code.patch"
OWN = "dxai"
"""This project, whose version is its commit."""
NOT_CODE = "data"
"""The folder for raw images; what is new in it is the user's data."""
KEPT = {PARAMS, DVC_LOCK}
"""Files that a run keeps anyway."""
LARGEST = 1 << 20
"""Bytes of a new file that may still be code."""


# ------------------------------------------------------------------------------------ code
def version_tags(root: Path) -> dict[str, str]:
    """Which code: the commit, whether files differ from it, dvc.lock's hash, and Python."""
    tags = {"python": platform.python_version()}
    if (root / DVC_LOCK).exists():
        tags["dvc_lock"] = hashlib.sha256((root / DVC_LOCK).read_bytes()).hexdigest()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["git_commit"] = _git(root, "rev-parse", "HEAD").decode().strip()
        tags["git_dirty"] = "yes" if _git(root, "status", "--porcelain") else "no"
    return tags


def uncommitted(root: Path) -> tuple[bytes, list[str]]:
    """How the files differ from the commit, and which new ones were left out.

    New files count if they are small and lie in a folder that the commit has, or are modules
    beside those; never what git ignores, nor data. params.yaml and dvc.lock are kept as they are.

    Parameters
    ----------
    root : Path
        The project's folder.

    Returns
    -------
    patch : bytes
        For `git apply`; empty where nothing differs, or where there is no repository.
    left_out : list of str
        New files, or the folders beside ours that they lie in.
    """
    try:
        folders = set(_names(_git(root, "ls-tree", "-z", "-d", "--name-only", "HEAD")))
        objects = os.fsdecode(_git(root, "rev-parse", "--git-path", "objects").rstrip(b"\n"))
    except (OSError, subprocess.CalledProcessError):
        return b"", []
    with tempfile.TemporaryDirectory() as place:
        # An index and a place for objects of its own: the repository stays as it is.
        own = {
            "GIT_INDEX_FILE": f"{place}/index",
            "GIT_OBJECT_DIRECTORY": place,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve()),
            "GIT_LITERAL_PATHSPECS": "1",
        }
        _git(root, "read-tree", "HEAD", environment=own)
        # New is what the commit has not, whether it was added since or not.
        others = ("ls-files", "-z", "--others", "--exclude-standard")
        new = set(_names(_git(root, *others, environment=own))) - KEPT
        code = {name for name in new if _is_code(root, name, folders - {NOT_CODE})}
        _git(root, "add", "--update", "--", ".", environment=own)
        if code:
            listing = b"\0".join(map(os.fsencode, sorted(code)))
            from_input = ("--pathspec-from-file=-", "--pathspec-file-nul")
            _git(root, "add", *from_input, environment=own, text=listing)
        own.pop("GIT_LITERAL_PATHSPECS")
        # The plumbing, which no setting of the user's changes.
        as_is = ("diff-index", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv")
        without = [f":(exclude){name}" for name in sorted(KEPT)]
        patch = _git(root, *as_is, "--cached", "HEAD", "--", ".", *without, environment=own)
    return patch, sorted({"/".join(name.split("/")[:2]) for name in new - code})


def _is_code(root: Path, name: str, folders: set[str]) -> bool:
    path = root / name
    if name.endswith("/") or not (path.is_symlink() or path.stat().st_size <= LARGEST):
        return False  # a repository within, or too large
    top, _, rest = name.partition("/")
    return top in folders if rest else name.endswith(".py")


def checkout(root: Path, commit: str, patch: Path | None, folder: Path) -> None:
    """Make a clone of a project at a commit, with what was not committed then.

    Parameters
    ----------
    root : Path
        The project's folder; nothing in it changes.
    commit : str
        Of the project.
    patch : Path or None
        From `uncommitted`.
    folder : Path
        An empty folder.

    Raises
    ------
    ValueError
        If there is no such commit, or if the patch does not fit it.
    """
    try:
        if prefix := _git(root, "rev-parse", "--show-prefix").strip():
            raise ValueError(f"{root} is {os.fsdecode(prefix)} of a repository, not the top of one")
    except subprocess.CalledProcessError:
        raise ValueError(f"{root}: no git repository; run in the project's folder") from None
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        raise ValueError(
            f"commit {commit} is not in this repository; `git fetch` it from where it was made"
        ) from None
    _git(root, "clone", "--quiet", "--local", "--no-checkout", str(root), str(folder))
    _git(folder, "checkout", "--quiet", "--detach", commit)
    if patch is not None:
        try:
            _git(folder, "apply", "--whitespace=nowarn", str(patch))
        except subprocess.CalledProcessError as error:
            said = os.fsdecode(error.stderr).strip()
            raise ValueError(f"{PATCH} does not fit commit {commit}: {said}") from None


def _git(
    root: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    text: bytes | None = None,
) -> bytes:
    return subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=os.environ | (environment or {}),
        input=text,
        capture_output=True,
        check=True,
    ).stdout


def _names(listing: bytes) -> list[str]:
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


# ------------------------------------------------------------------------------------ environment
def environment() -> str:
    """Python in a comment, then `name==version` of everything that is installed; nothing else."""
    lines = [f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += [f"{name}=={version}" for name, version in sorted(installed().items())]
    return "\n".join(lines) + "\n"


def installed() -> dict[str, str]:
    """Name to version of every installed package but this one."""
    found: dict[str, str] = {}
    for package in metadata.distributions():  # the first one of a name is what is imported
        if package.name:
            found.setdefault(_plain(package.name), package.version)
    found.pop(OWN, None)
    return found


def read_environment(text: str) -> tuple[str, dict[str, str]]:
    """Python's version, and name to version, from what `environment` wrote."""
    python = re.match(r"# Python (\S+)", text)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==", 1) for line in lines)
    return python[1] if python else "", {_plain(name): pin for name, pin in pins.items()}


def differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is wanted and found otherwise, or not at all; what is found beside it does not count."""
    return [
        f"{name} {version} (here {found.get(name, 'missing')})"
        for name, version in wanted.items()
        if found.get(name) != version
    ]


def make_environment(folder: Path, wanted: Mapping[str, str]) -> Path:
    """Install what a project needs, in these versions, into its .venv.

    Parameters
    ----------
    folder : Path
        A project's folder, with its pyproject.toml.
    wanted : mapping
        Name to version. A label such as `+cpu` is left to the package index, which serves one of
        them at most.

    Returns
    -------
    Path
        The environment's Python.

    Raises
    ------
    ValueError
        If it cannot be installed; pip has said why.
    """
    place = folder / ".venv"
    python, pins, done = place / "bin/python", place / "constraints.txt", place / "installed"
    if not done.exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            lines = [f"{name}=={pin.partition('+')[0]}\n" for name, pin in wanted.items()]
            pins.write_text("".join(lines))
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            needed = [*pip, "-c", str(pins), *project["dependencies"]]
            subprocess.run(needed, stdin=subprocess.DEVNULL, check=True)
        except subprocess.CalledProcessError:
            raise ValueError(f"{place}: the run's versions could not be installed") from None
        done.touch()
    return python


def installed_in(python: Path) -> dict[str, str]:
    """The same as `installed`, of another environment."""
    pip = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listing = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    return {_plain(package["name"]): package["version"] for package in json.loads(listing)}


def _plain(name: str) -> str:
    """A package's name as all its spellings are written."""
    return re.sub(r"[-_.]+", "-", name).lower()
