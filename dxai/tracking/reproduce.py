"""Computing a run of MLflow again, from what it kept: its commit, settings, data and environment.

All of it happens in a folder of its own, a clone at the run's commit with a DVC cache of its own,
so that nothing is taken from what was computed before unless that is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dxai.paths import DVC_LOCK, PARAMS, Paths
from dxai.results.comparison import CellChange, Comparison, LoggedRun, compare
from dxai.results.io import read_table
from dxai.results.metric_names import MetricValue, metric_values, tables_with_metrics
from dxai.tracking import mlflow_store, provenance
from dxai.utils import dvc_files, processes
from dxai.utils.files import atomic, atomic_folder, locked, read_json

FILES = (PARAMS, DVC_LOCK, provenance.ENVIRONMENT, provenance.PATCH)
GRACE = 60.0
"""Seconds that DVC and its stage get to end after Ctrl-C, and again after SIGTERM."""


@dataclass(frozen=True)
class Output:
    """What a stage wrote, in the run and again.

    Attributes
    ----------
    stage, path : str
        As in dvc.lock.
    before, after : str, optional
        Hashes; None where it was not written.
    files : tuple of str
        Which files of a folder differ, as far as the run's are still known here.
    """

    stage: str
    path: str
    before: str | None
    after: str | None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """A run, and what came of computing it again.

    Attributes
    ----------
    folder : Path
        Where it was computed.
    comparison : Comparison
        The run before, what was computed after.
    outputs : list of Output
        Of all stages; none if the run kept no dvc.lock.
    inputs : list of Output
        Of no stage, and not as they were: data, or code that the run did not keep.
    """

    folder: Path
    comparison: Comparison
    outputs: list[Output]
    inputs: list[Output]

    def differing(self, tolerance: float = 0.0) -> list[CellChange]:
        """The cells that are not the same, or that only one side has."""
        return [
            cell
            for cell in self.comparison.changed
            if cell.difference is None or abs(cell.difference) > tolerance
        ]


def reproduce(
    spec: str,
    folder: Path | None = None,
    here: bool = False,
    from_cache: bool = False,
    say: Callable[[str], None] = print,
) -> Reproduction:
    """Compute a run again, and compare; in the project's folder, in which nothing changes.

    Parameters
    ----------
    spec : str
        As for `mlflow_store.read_run`.
    folder : Path, optional
        Where to; default: .work/reproduced/<id>. If the run was begun there, it goes on.
    here : bool
        Whether to use the present environment, whatever the run's was.
    from_cache : bool
        Whether to take outputs from the project's cache, where it has them; their hashes are
        checked.
    say : callable
        Gets a line for each thing that is done.

    Raises
    ------
    ValueError
        If something is missing, or a stage fails; the message names it.
    """
    root, original = Path.cwd(), mlflow_store.read_run(spec)
    # Without `..` in it: what lies in the folder is told by its path.
    folder = Path(os.path.abspath(folder or Paths(root).reproduced / original.id[:8]))
    say(f"run {original.id[:8]} ({original.name}, {original.started}) in {folder}")
    _prepare(root, folder, original, say)
    with _alone(folder) as lock:
        original = dataclasses.replace(original, cells=_cells(Paths(folder).original / "tables"))
        for link, what in _link_given(root, folder):
            say(f"linked {link}, {what}, as it is now")
        python = _python(folder, here, say)
        environment = _environment(folder, python)
        _separate_storage(folder, original.id, python, environment, say)
        dvc = [str(python), "-m", "dvc"]
        (folder / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")
        cache = _cache(root, dvc, environment)
        kept = dvc_files.stages(Paths(folder).original / DVC_LOCK)
        if from_cache and kept and not (folder / DVC_LOCK).exists():
            for path in _restore(kept, cache, folder):
                say(f"computed, since the cache does not have it, or not intact: {path}")
            shutil.copy(Paths(folder).original / DVC_LOCK, folder)
        if from_cache:  # not a failure where something is missing: it is computed
            _run([*dvc, "checkout", "--quiet", "--allow-missing"], folder, environment, lock)
        failed = _run([*dvc, "repro"], folder, environment, lock)
        ran = dvc_files.stages(folder / DVC_LOCK)
        if failed and (from_cache or "tables" not in ran):
            raise ValueError(
                f"dvc repro failed in {folder}; what is finished is kept, the same command goes on"
            )
        again = LoggedRun("", "again", cells=_cells(Paths(folder).tables))
        caches = (cache, folder / ".dvc/cache")
        return Reproduction(
            folder,
            compare(original, again),
            [_with_files(o, caches) for o in _outputs(kept, ran, "outs")] if kept else [],
            _changed_inputs(kept, ran),
        )


# ------------------------------------------------------------------------------------ the folder
def _prepare(root: Path, folder: Path, original: LoggedRun, say: Callable[[str], None]) -> None:
    """Make the folder, unless this run has it already."""
    mark = Paths(folder).original / "run"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not mark.exists() or mark.read_text() != original.id:
            raise ValueError(f"{folder} holds something else; name another folder with --into")
        say("begun before; it goes on")
        return
    if original.commit is None:
        raise ValueError(
            f"run {original.id}: it was logged outside of git, so its code is not known"
        )
    with atomic_folder(folder) as place:
        kept = place.with_name(f"{place.name}.original")
        kept.mkdir(exist_ok=True)
        try:
            tags = mlflow_store.download(original.id, [*FILES, "tables"], kept)
            patch = kept / provenance.PATCH
            provenance.checkout(root, original.commit, patch if patch.exists() else None, place)
            (kept / "run").write_text(original.id)
            (Paths(place).original).parent.mkdir(exist_ok=True)
            kept.rename(Paths(place).original)
        finally:
            shutil.rmtree(kept, ignore_errors=True)
        if not (Paths(place).original / PARAMS).exists():
            raise ValueError(f"run {original.id}: it kept no params.yaml")
        shutil.copy(Paths(place).original / PARAMS, place)
        (place / DVC_LOCK).unlink(missing_ok=True)
        _say_code(original, place, tags, say)


def _say_code(
    original: LoggedRun, place: Path, tags: Mapping[str, str], say: Callable[[str], None]
) -> None:
    patched = (Paths(place).original / provenance.PATCH).exists()
    say(f"code: commit {original.commit}{' and its uncommitted changes' if patched else ''}")
    if original.dirty and not (Paths(place).original / provenance.ENVIRONMENT).exists():
        say("warning: it had uncommitted changes, which runs did not keep when it was logged")
    if left_out := tags.get("git_left_out"):
        say(f"note: files that were new then, and not kept as code: {left_out}")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """For one process at a time; yields the lock, which DVC inherits: it may outlive us."""
    with locked(Paths(folder).reproduce_lock) as lock:
        if lock is None:
            raise ValueError(f"{folder}: another process is computing there")
        # Nobody runs DVC here, so locks that a killed one left are nobody's.
        (folder / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        yield lock.fileno()


def _link_given(root: Path, folder: Path) -> list[tuple[str, str]]:
    """Link what the run was given and git does not have: data, weights, a user's own modules.

    Raises
    ------
    ValueError
        If any of it is nowhere; all that is missing is named.
    """
    params = _settings(folder)
    needed: dict[str, str] = {}
    optional: dict[str, str] = {}
    for name, dataset in params["datasets"].items():
        source = Path(dataset["source"])
        if source.suffix.lower() == ".csv" and not (folder / source.parent).exists():
            source = source.parent  # with the images that the table names
        path = str(source) if "://" not in dataset["source"] else dataset["source"]
        needed[path] = f"the source of dataset {name}"
    for name, spec in (params["classifiers"] | params.get("joint", {})).items():
        if weights := spec.get("weights"):
            needed[weights] = f"the weights of classifier {name}"
        module = str(spec.get("arch", "")).partition(":")
        if module[1]:
            top = module[0].split(".")[0]
            optional |= dict.fromkeys((f"{top}.py", top), f"the code of classifier {name}")
    linked, missing = [], []
    for path, what in (needed | optional).items():
        elsewhere = "://" in path or path.startswith("~") or "$" in path
        if elsewhere or (folder / path).exists():
            continue
        inside = Path(os.path.normpath(folder / path)).is_relative_to(folder)
        if inside and (root / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).unlink(missing_ok=True)  # a link to where it was
            (folder / path).symlink_to((root / path).resolve())
            linked.append((path, what))
        elif path in needed:
            missing.append(
                f"{path} ({what}) is {'nowhere' if inside else 'not beside ' + str(folder)}"
            )
    if missing:
        raise ValueError(
            f"{'; '.join(missing)}. Put it into {root}, and give the same command again"
            if all("nowhere" in line for line in missing)
            else f"{'; '.join(missing)}. A path out of the project needs --into a folder beside it"
        )
    return linked


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of the run; a run of an earlier version has them in the block `run`."""
    params = yaml.safe_load((folder / PARAMS).read_text())
    return params.get("run", params)


def _separate_storage(
    folder: Path,
    run: str,
    python: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Keep trainings from going on from the run's own checkpoints, where those lie elsewhere."""
    storage, own = _settings(folder).get("training", {}).get("storage", ""), f"reproduced-{run[:8]}"
    if not ("://" in storage or os.path.isabs(storage)) or storage.endswith(own):
        return
    place = f"{storage.rstrip('/')}/{own}"
    command = [str(python), "-m", "dxai", "use", "--set", f"training.storage={place}"]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    say(f"checkpoints: in {place}, since the run's own are in {storage}")


# ------------------------------------------------------------------------------------ environment
def _python(folder: Path, here: bool, say: Callable[[str], None]) -> Path:
    """A Python with the packages of the run: this one, or one that is made in the folder."""
    present, kept = Path(sys.executable), Paths(folder).original / provenance.ENVIRONMENT
    if not kept.exists():
        say("warning: the run kept no versions of packages; the present ones are used")
        return present
    version, wanted = provenance.read_environment(kept.read_text())
    found = provenance.installed()
    ours = provenance.read_environment(provenance.environment())[0]
    if version != ours:
        say(f"warning: the run had Python {version}, here is {ours}")
    if not (others := provenance.differing(wanted, found)):
        say(f"packages: all {len(wanted)} have the run's versions")
        return present
    say(f"packages: {len(others)} of {len(wanted)} differ from the run's: {', '.join(others)}")
    if here:
        return present
    say(f"the run's versions are installed into {folder / '.venv'}; this takes some minutes")
    python = provenance.make_environment(folder, wanted)
    found = provenance.installed_in(python)
    # What only the run's environment had, the project does not need.
    if others := provenance.differing({n: v for n, v in wanted.items() if n in found}, found):
        say(f"warning: not the run's versions even there: {', '.join(others)}")
    return python


def _environment(folder: Path, python: Path) -> dict[str, str]:
    """What DVC and the stages find in theirs; results stay in the folder, trainings too."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "VIRTUAL_ENV")}
    return kept | {
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "true",
    }


# ------------------------------------------------------------------------------------ DVC
def _cache(root: Path, dvc: list[str], environment: Mapping[str, str]) -> Path:
    """Where the project's cache is."""
    command = [*dvc, "cache", "dir"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{root}: dvc cache dir failed: {done.stderr.strip()}")
    return Path(root, done.stdout.strip().splitlines()[-1])


def _restore(stages: Mapping[str, Any], cache: Path, folder: Path) -> list[str]:
    """Copy the outputs of a dvc.lock from one cache to the folder's, if every file has its hash.

    DVC itself would delete what is damaged from the cache that it reads.

    Returns
    -------
    list of str
        Outputs that are not there, or damaged.
    """
    lost = []
    for (_, path), digest in dvc_files.hashes(stages, "outs").items():
        try:
            content = _object(cache, digest)
            parts = json.loads(content) if digest.endswith(".dir") else []
            objects = {part["md5"]: _object(cache, part["md5"]) for part in parts}
        except (OSError, ValueError):
            lost.append(path)
            continue
        for name, data in (objects | {digest: content}).items():
            target = dvc_files.object_path(folder / ".dvc/cache", name)
            if not target.exists():
                with atomic(target) as temporary:
                    temporary.write_bytes(data)
    return lost


def _object(cache: Path, digest: str) -> bytes:
    """A file of a cache; ValueError if it is not what its name says."""
    content = dvc_files.object_path(cache, digest).read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest.removesuffix(".dir"):
        raise ValueError(f"{digest} is damaged")
    return content


def _run(command: list[str], folder: Path, environment: Mapping[str, str], lock: int) -> int:
    """Run a program to its end; if we are stopped, it stops first, in its own way."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        process_group=0,
        pass_fds=[lock],
    )
    try:
        return process.wait()
    finally:
        processes.end_group(process.pid, grace=GRACE)


# ------------------------------------------------------------------------------------ comparing
def _cells(folder: Path) -> list[MetricValue]:
    """The cells of the tables in a folder."""
    paths = {name: folder / f"{name}.csv" for name in tables_with_metrics()}
    return metric_values({name: read_table(path) for name, path in paths.items() if path.exists()})


def _outputs(before: Mapping[str, Any], after: Mapping[str, Any], kind: str) -> list[Output]:
    first, second = dvc_files.hashes(before, kind), dvc_files.hashes(after, kind)
    keys = dict.fromkeys([*first, *second])
    return [Output(*key, first.get(key), second.get(key)) for key in keys]


def _changed_inputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Output]:
    """Dependencies that no stage writes and that are not as they were, each of them once."""
    written = [dvc_files.hashes(stages, "outs") for stages in (before, after)]
    made = tuple({path for outs in written for _, path in outs})
    found: dict[str, Output] = {}
    for entry in _outputs(before, after, "deps"):
        if entry.before and entry.after and entry.before != entry.after:
            found.setdefault(entry.path, entry)
    return [entry for path, entry in found.items() if not _overlaps(Path(path), made)]


def _overlaps(path: Path, made: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(other) or Path(other).is_relative_to(path) for other in made)


def _with_files(output: Output, caches: tuple[Path, Path]) -> Output:
    """The same, with the files of a folder that differ, if both caches have its list."""
    if output.before == output.after:
        return output
    lists = []
    for digest, cache in zip((output.before, output.after), caches, strict=True):
        path = dvc_files.object_path(cache, digest or "")
        if not (digest or "").endswith(".dir") or not path.is_file():
            return output
        lists.append({entry["relpath"]: entry["md5"] for entry in read_json(path)})
    names = sorted(n for n in {*lists[0], *lists[1]} if lists[0].get(n) != lists[1].get(n))
    return dataclasses.replace(output, files=tuple(names))


def as_text(found: Reproduction, tolerance: float = 0.0) -> str:
    """What was the same, and a table of what was not."""
    lines = [""]
    for entry in found.inputs:
        lines.append(f"warning: {entry.path}, which {entry.stage} reads, is not as it was")
    others = [output for output in found.outputs if output.before != output.after]
    if found.outputs:
        same = len(found.outputs) - len(others)
        lines.append(f"Outputs: {same} of {len(found.outputs)} have the same bytes")
        lines += [f"  {output.stage}: {_about(output)}" for output in others]
    else:
        lines.append("Outputs: the run kept no dvc.lock to compare with")
    cells, total = found.differing(tolerance), len(found.comparison.cells)
    lines.append(f"Cells: {total - len(cells)} of {total} are the same (tolerance {tolerance:g})")
    if cells:
        width = max(len(cell.name) for cell in cells)
        lines.append(f"  {'cell':{width}}  {'run':>12}  {'again':>12}  {'difference':>12}")
        for cell in cells:
            values = [own.value if own else None for own in (cell.before, cell.after)]
            shown = [f"{_number(value):>12}" for value in (*values, cell.difference)]
            lines.append(f"  {cell.name:{width}}  {'  '.join(shown)}")
    lines.append("not reproduced" if cells else f"reproduced, in {found.folder}")
    return "\n".join(lines)


def _about(output: Output) -> str:
    if output.before is None or output.after is None:
        return f"{output.path} was written only {'again' if output.after else 'in the run'}"
    if not output.files:
        return f"{output.path} differs"
    more = f" and {len(output.files) - 4} more" if len(output.files) > 4 else ""
    return f"{output.path} differs in {', '.join(output.files[:4])}{more}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
