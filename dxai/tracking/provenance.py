"""Record the code and the environment of a run, and restore them."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dxai.paths import DVC_LOCK, PARAMS, Paths
from dxai.utils.files import sha256

ENVIRONMENT = "environment.txt"
PATCH = "code.patch"
OWN = "dxai"
"""This package; its version is the commit."""
STAGES_EXTRA = "pipeline"
"""The extra with the requirements of `dvc repro`."""
NOT_CODE = "data"
"""Folder for raw images; new files in it are data."""
KEPT = {PARAMS, DVC_LOCK}
"""Files that every run keeps."""
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""Variables by which git would look at another repository than that of the folder."""
LARGEST = 1 << 20
"""Largest size in bytes of a new file that counts as code."""


# ------------------------------------------------------------------------------------ code
def version(root: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return tags that name the code and environment, and the files that restore them."""
    tags = {"python": platform.python_version()}
    texts = {ENVIRONMENT: environment().encode()}
    if (root / DVC_LOCK).exists():
        tags["dvc_lock"] = sha256(root / DVC_LOCK)
    if why := problem(Paths(root).project):
        tags["git_problem"] = why
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["git_commit"] = _git(root, "rev-parse", "HEAD").decode().strip()
        tags["git_dirty"] = "yes" if _git(root, "status", "--porcelain") else "no"
    patch, left_out = uncommitted(root)
    if patch:
        texts[PATCH] = patch
    if left_out:
        tags["git_left_out"] = ", ".join(left_out[:20])
    return tags, texts


def problem(root: Path) -> str:
    """Return why git names no commit for a folder, in one line with the remedy; "" if it does."""
    try:
        _git(root, "rev-parse", "HEAD")
    except FileNotFoundError:
        return "git is not installed"
    except subprocess.CalledProcessError as error:
        said = os.fsdecode(error.stderr)
        if "dubious ownership" in said:
            trust = f"git config --global --add safe.directory {shlex.quote(str(root.resolve()))}"
            return f"{root.resolve()} belongs to another user, so git reads nothing; `{trust}`"
        if "ambiguous argument 'HEAD'" in said:
            return "the repository has no commit yet; `git commit` makes one"
        return f"git says: {(said.strip().splitlines() or ['nothing'])[-1]}"
    return ""


def uncommitted(root: Path) -> tuple[bytes, list[str]]:
    """Return the uncommitted changes as a patch, and the new files that it leaves out.

    New files are included if they are small and in a folder that the commit has, or are modules
    beside these folders; never ignored files and data. params.yaml and dvc.lock are kept
    separately. The patch, for `git apply`, is empty without changes or a repository; files left out
    may be named by their folder.
    """
    try:
        folders = set(_names(_git(root, "ls-tree", "-z", "-d", "--name-only", "HEAD")))
        objects = os.fsdecode(_git(root, "rev-parse", "--git-path", "objects").rstrip(b"\n"))
    except (OSError, subprocess.CalledProcessError):
        return b"", []
    with tempfile.TemporaryDirectory() as folder:
        # Use a temporary index and object folder to leave the repository unchanged.
        own = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve()),
            "GIT_LITERAL_PATHSPECS": "1",
        }
        _git(root, "read-tree", "HEAD", environment=own)
        # New files are those missing from the commit, staged or not.
        others = ("ls-files", "-z", "--others", "--exclude-standard")
        new = set(_names(_git(root, *others, environment=own))) - KEPT
        code = {name for name in new if _is_code(root, name, folders - {NOT_CODE})}
        _git(root, "add", "--update", "--", ".", environment=own)
        if code:
            listing = b"\0".join(map(os.fsencode, sorted(code)))
            from_input = ("--pathspec-from-file=-", "--pathspec-file-nul")
            _git(root, "add", *from_input, environment=own, text=listing)
        own.pop("GIT_LITERAL_PATHSPECS")
        # A plumbing command ignores the user's git settings.
        as_is = ("diff-index", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv")
        without = [f":(exclude){name}" for name in sorted(KEPT)]
        patch = _git(root, *as_is, "--cached", "HEAD", "--", ".", *without, environment=own)
    return patch, sorted({"/".join(name.split("/")[:2]) for name in new - code})


def _is_code(root: Path, name: str, folders: set[str]) -> bool:
    path = root / name
    if name.endswith("/") or not (path.is_symlink() or path.stat().st_size <= LARGEST):
        return False  # a nested repository, or too large
    top, _, rest = name.partition("/")
    return top in folders if rest else name.endswith(".py")


def checkout(root: Path, commit: str, patch: Path | None, folder: Path) -> None:
    """Clone a project at a commit into an empty folder, and apply a patch of `uncommitted` there.

    The project's own folder, `root`, is unchanged. Raises `ValueError` if the commit does not
    exist, or the patch does not apply.
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
            f"commit {commit} is not in this repository; `git fetch` it from one that has it"
        ) from None
    _git(root, "clone", "--quiet", "--local", "--no-checkout", str(root), str(folder))
    _git(folder, "checkout", "--quiet", "--detach", commit)
    if patch is not None:
        try:
            _git(folder, "apply", "--whitespace=nowarn", str(patch))
        except subprocess.CalledProcessError as error:
            said = os.fsdecode(error.stderr).strip()
            raise ValueError(f"{PATCH} does not apply to commit {commit}: {said}") from None


def files(root: Path) -> list[str]:
    """Return the files of a repository that is not to be trusted, or has no commit yet.

    Those are what git tracks or could add.
    """
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return _names(_git(root, "-c", "safe.directory=*", *listing))


def _git(
    root: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    text: bytes | None = None,
) -> bytes:
    return subprocess.run(
        ["git", *arguments],
        cwd=root,
        # A hook's GIT_DIR names another repository.
        env={k: v for k, v in os.environ.items() if k not in FOREIGN} | dict(environment or {}),
        input=text,
        capture_output=True,
        check=True,
    ).stdout


def _names(listing: bytes) -> list[str]:
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


# ------------------------------------------------------------------------------------ environment
def environment() -> str:
    """Return Python's version as a comment, then `name==version` of every installed package."""
    lines = [f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += [f"{name}=={version}" for name, version in sorted(installed().items())]
    return "\n".join(lines) + "\n"


def installed(venv: Path | None = None) -> dict[str, str]:
    """Return the versions of all packages but this one, installed here or in a venv, by name."""
    found: dict[str, str] = {}
    folders = sys.path if venv is None else map(str, venv.glob("lib/python*/site-packages"))
    # Python imports the first one of a name.
    for package in metadata.distributions(path=list(folders)):
        if package.name:
            found.setdefault(_plain(package.name), package.version)
    found.pop(OWN, None)
    return found


def read_environment(text: str) -> tuple[str, dict[str, str]]:
    """Parse the text of `environment` into Python's version and the packages' versions."""
    python = re.match(r"# Python (\S+)", text)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==", 1) for line in lines)
    return python[1] if python else "", {_plain(name): pin for name, pin in pins.items()}


def differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Name wanted packages that are missing or have another version; ignore others."""
    return [
        f"{name} {version} (here {found.get(name, 'missing')})"
        for name, version in wanted.items()
        if found.get(name) != version
    ]


def make_environment(folder: Path, wanted: Mapping[str, str]) -> Path:
    """Install a project's dependencies in these versions into its .venv; returns that folder.

    Labels such as `+cpu` are dropped, since an index serves at most one of them. Raises
    `ValueError` if a package cannot be installed; pip has printed the reason.
    """
    venv = folder / ".venv"
    pins, done = venv / "constraints.txt", venv / "installed"
    if not done.exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            lines = [f"{name}=={pin.partition('+')[0]}\n" for name, pin in wanted.items()]
            pins.write_text("".join(lines))
            pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet"]
            needed = [*pip, "--disable-pip-version-check", "-c", str(pins), *_requirements(project)]
            subprocess.run(needed, stdin=subprocess.DEVNULL, check=True)
        except subprocess.CalledProcessError:
            raise ValueError(f"{venv}: the run's versions could not be installed") from None
        done.touch()
    return venv


def _requirements(project: Mapping[str, Any]) -> list[str]:
    """Return requirements of stages and DVC; an earlier version of this project has no extras."""
    extras = project.get("optional-dependencies", {})
    found = [*project["dependencies"], *extras.get(STAGES_EXTRA, [])]
    for line in found:  # grows: an extra may name others, as `dxai[data,..]`
        if own := re.fullmatch(rf"{OWN}\[(.+)\]", line):
            found += [more for name in own[1].split(",") for more in extras[name.strip()]]
    return [line for line in found if not line.startswith(f"{OWN}[")]


def _plain(name: str) -> str:
    """Normalise the spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
