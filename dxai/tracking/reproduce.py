"""Compute an MLflow run again from its commit, settings, data and environment, and compare.

All of it happens in a clone at the run's commit with a DVC cache of its own, so earlier results are
reused only on request.
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

from dxai.paths import DVC_LOCK, PARAMS, Paths
from dxai.reporting.text import aligned
from dxai.results.comparison import CellChange, Comparison, LoggedRun, compare
from dxai.results.io import read_table
from dxai.results.metric_names import MetricValue, metric_values, tables_with_metrics
from dxai.tracking import mlflow_store, provenance, workspace
from dxai.utils import dvc_files, processes
from dxai.utils.files import atomic, atomic_folder, locked, read_json

FILES = (PARAMS, DVC_LOCK, provenance.ENVIRONMENT, provenance.PATCH)
GRACE = 60.0
"""Seconds for DVC and its stage to end after Ctrl-C, and again after SIGTERM."""


@dataclass(frozen=True)
class Output:
    """An output of a stage, as dvc.lock names it, in the run and in its repetition."""

    stage: str
    path: str
    before: str | None
    """Hash; None if it was not written."""
    after: str | None
    files: tuple[str, ...] = ()
    """Files of a folder that differ, if the cache here still has the run's list of them."""


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a run with its repetition in the clone `folder`."""

    folder: Path
    comparison: Comparison
    outputs: list[Output]
    """Outputs of all stages; empty if the run has no dvc.lock."""
    inputs: list[Output]
    """Changed inputs that no stage writes: data, or code that the run did not keep."""

    def differing(self, tolerance: float = 0.0) -> list[CellChange]:
        """Return the cells that differ beyond the tolerance, or exist on only one side."""
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
    """Repeat a run, named as for `mlflow_store.read_run`, in a clone, and compare.

    The project's folder is unchanged. The clone is `folder`, by default .work/reproduced/<id>; an
    interrupted repetition there is resumed. `here` uses the current environment even if the run's
    differed; `from_cache` uses outputs from the project's cache after checking their hashes. `say`
    receives a line of text at each step. Raises `ValueError` if something is missing or a stage
    fails; the message names it.
    """
    root, original = Path.cwd(), mlflow_store.read_run(spec)
    # Without `..`, so that `is_relative_to` tells what lies in the folder.
    folder = Path(os.path.abspath(folder or Paths(root).reproduced / original.id[:8]))
    say(f"run {original.id[:8]} ({original.name}, {original.started}) in {folder}")
    _prepare(root, folder, original, say)
    with _alone(folder) as lock:
        original = dataclasses.replace(original, cells=_cells(Paths(folder).original / "tables"))
        for link, what in workspace.link_given(root, folder):
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
                say(f"missing or damaged in the cache, so computed: {path}")
            shutil.copy(Paths(folder).original / DVC_LOCK, folder)
        if from_cache:  # missing outputs are computed
            _run([*dvc, "checkout", "--quiet", "--allow-missing"], folder, environment, lock)
        failed = _run([*dvc, "repro"], folder, environment, lock)
        ran = dvc_files.stages(folder / DVC_LOCK)
        if failed and (from_cache or "tables" not in ran):
            raise ValueError(f"dvc repro failed in {folder}; run the same command again to resume")
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
    """Make the clone unless it exists."""
    mark = Paths(folder).original / "run"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not mark.exists() or mark.read_text() != original.id:
            raise ValueError(f"{folder} is not a clone for this run; name another with --into")
        say("begun before; resuming")
        return
    if original.commit is None:
        raise ValueError(f"run {original.id}: logged outside of git, so its code is unknown")
    with atomic_folder(folder) as clone:
        kept = clone.with_name(f"{clone.name}.original")
        kept.mkdir(exist_ok=True)
        try:
            tags = mlflow_store.download(original.id, [*FILES, "tables"], kept)
            patch = kept / provenance.PATCH
            provenance.checkout(root, original.commit, patch if patch.exists() else None, clone)
            (kept / "run").write_text(original.id)
            Paths(clone).work.mkdir(exist_ok=True)
            kept.rename(Paths(clone).original)
        finally:
            shutil.rmtree(kept, ignore_errors=True)
        kept = Paths(clone).original
        if not (kept / PARAMS).exists():
            raise ValueError(f"run {original.id}: it has no {PARAMS}")
        shutil.copy(kept / PARAMS, clone)
        Paths(clone).dvc_lock.unlink(missing_ok=True)
        patched = " and its uncommitted changes" if (kept / provenance.PATCH).exists() else ""
        say(f"code: commit {original.commit}{patched}")
        if original.dirty and not (kept / provenance.ENVIRONMENT).exists():
            say("warning: the run had uncommitted changes, which it did not keep")
        if left_out := tags.get("git_left_out"):
            say(f"note: new files that the run did not keep as code: {left_out}")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Lock the clone; yields the descriptor for DVC to inherit, as it may outlive this process."""
    with locked(Paths(folder).reproduce_lock) as lock:
        if lock is None:
            raise ValueError(f"{folder}: another process is computing there")
        # No DVC is running here, so its locks were left by a killed one.
        (folder / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        yield lock.fileno()


def _separate_storage(
    folder: Path, run: str, python: Path, environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Keep trainings from resuming the run's own checkpoints in a storage outside the folder."""
    training, own = workspace.settings(folder).get("training", {}), f"reproduced-{run[:8]}"
    storage = training.get("storage", "")
    if not ("://" in storage or os.path.isabs(storage)) or storage.endswith(own):
        return
    separate = f"{storage.rstrip('/')}/{own}"
    command = [str(python), "-m", "dxai", "use", "--set", f"training.storage={separate}"]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    say(f"checkpoints: in {separate}, since the run's own are in {storage}")


# ------------------------------------------------------------------------------------ environment
def _python(folder: Path, here: bool, say: Callable[[str], None]) -> Path:
    """Return a Python with the packages of the run: this one, or a new one in the folder."""
    present, kept = Path(sys.executable), Paths(folder).original / provenance.ENVIRONMENT
    if not kept.exists():
        say("warning: the run kept no versions of packages; using the current ones")
        return present
    version, wanted = provenance.read_environment(kept.read_text())
    found = provenance.installed()
    ours = provenance.read_environment(provenance.environment())[0]
    if version != ours:
        say(f"warning: the run had Python {version}, this is {ours}")
    if not (others := provenance.differing(wanted, found)):
        say(f"packages: all {len(wanted)} have the run's versions")
        return present
    say(f"packages: {len(others)} of {len(wanted)} differ from the run's: {', '.join(others)}")
    if here:
        return present
    say(f"installing the run's versions into {folder / '.venv'}; this takes some minutes")
    venv = provenance.make_environment(folder, wanted)
    found = provenance.installed(venv)
    # The project does not need packages that only the run's environment had.
    if others := provenance.differing({n: v for n, v in wanted.items() if n in found}, found):
        say(f"warning: these versions still differ from the run's: {', '.join(others)}")
    return venv / "bin/python"


def _environment(folder: Path, python: Path) -> dict[str, str]:
    """Return the environment of DVC and its stages; results and trainings stay in the folder."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "VIRTUAL_ENV")}
    return kept | {
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "true",
    }


# ------------------------------------------------------------------------------------ DVC
def _cache(root: Path, dvc: list[str], environment: Mapping[str, str]) -> Path:
    command = [*dvc, "cache", "dir"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{root}: dvc cache dir failed: {done.stderr.strip()}")
    return Path(root, done.stdout.strip().splitlines()[-1])


def _restore(stages: Mapping[str, Any], cache: Path, folder: Path) -> list[str]:
    """Copy the outputs of a dvc.lock from a cache to the folder's, if every file has its hash.

    DVC itself would delete damaged files from the cache. Returns the missing or damaged outputs.
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
    """Read a file of a cache; raises ValueError if it does not match its hash."""
    content = dvc_files.object_path(cache, digest).read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest.removesuffix(".dir"):
        raise ValueError(f"{digest} is damaged")
    return content


def _run(command: list[str], folder: Path, environment: Mapping[str, str], lock: int) -> int:
    """Run a program; stop it gracefully first if this process is stopped."""
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
    """Return the cells of the tables in a folder."""
    paths = {name: folder / f"{name}.csv" for name in tables_with_metrics()}
    return metric_values({name: read_table(path) for name, path in paths.items() if path.exists()})


def _outputs(before: Mapping[str, Any], after: Mapping[str, Any], kind: str) -> list[Output]:
    first, second = dvc_files.hashes(before, kind), dvc_files.hashes(after, kind)
    keys = dict.fromkeys([*first, *second])
    return [Output(*key, first.get(key), second.get(key)) for key in keys]


def _changed_inputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Output]:
    """Return the changed dependencies that no stage writes, each once."""
    written = [dvc_files.hashes(stages, "outs") for stages in (before, after)]
    made = {Path(path) for outs in written for _, path in outs}
    found: dict[str, Output] = {}
    for entry in _outputs(before, after, "deps"):
        if entry.before and entry.after and entry.before != entry.after:
            found.setdefault(entry.path, entry)
    return [
        entry
        for path, entry in found.items()
        if not any(out.is_relative_to(path) or Path(path).is_relative_to(out) for out in made)
    ]


def _with_files(output: Output, caches: tuple[Path, Path]) -> Output:
    """Add the files of a folder that differ, if both caches list its files."""
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
    """Format the comparison: a summary, and a table of the cells that differ."""
    lines = [""]
    for entry in found.inputs:
        lines.append(f"warning: {entry.path}, an input of {entry.stage}, has changed")
    others = [output for output in found.outputs if output.before != output.after]
    if found.outputs:
        same = len(found.outputs) - len(others)
        lines.append(f"Outputs: {same} of {len(found.outputs)} have the same bytes")
        lines += [f"  {output.stage}: {_about(output)}" for output in others]
    else:
        lines.append("Outputs: the run has no dvc.lock to compare with")
    cells, total = found.differing(tolerance), len(found.comparison.cells)
    lines.append(f"Cells: {total - len(cells)} of {total} are the same (tolerance {tolerance:g})")
    if cells:
        table = [["cell", "run", "again", "difference"]]
        for cell in cells:
            values = [own.value if own else None for own in (cell.before, cell.after)]
            table.append([cell.name, *map(_number, (*values, cell.difference))])
        heading, _, *rows = aligned(table, 1, [0, 12, 12, 12]).splitlines()
        lines += [f"  {line}" for line in (heading, *rows)]
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
