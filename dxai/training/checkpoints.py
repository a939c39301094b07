"""The unfinished state of a training, on disk and optionally mirrored to an object store.

A checkpoint is a file of tensors, then a manifest with its hash, each written atomically: without a
matching manifest it does not exist.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dxai.models.serialization import write_tensors
from dxai.utils.files import atomic, read_json, sha256, write_json
from dxai.utils.storage import StorageError, open_url, send_file, with_retries

DAMAGED = ("FileNotFoundError", "FlexibleChecksumError")
"""Errors of object store clients for a missing or damaged object."""


class CheckpointError(ValueError):
    """A checkpoint could not be saved; the message names the last one that was."""


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's number of steps done, hash of its file, and score (higher is better)."""

    step: int
    sha256: str
    score: float

    @classmethod
    def read(cls, content: Any) -> Manifest:
        """Parse JSON; raises KeyError, TypeError or ValueError for anything but a manifest."""
        return cls(int(content["step"]), str(content["sha256"]), float(content["score"]))


class Checkpoint:
    """The last `keep` checkpoints of one training, and the best.

    Parameters
    ----------
    folder : Path
        Of this training alone; its name should contain a digest of everything that determines the
        result, so that a run with other settings never resumes from it.
    mirror : str, optional
        A URL (``s3://bucket/prefix``) for copies, from which other machines resume.
    keep : int
        Number of latest checkpoints kept; the best is kept too.
    """

    def __init__(self, folder: Path, mirror: str | None = None, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self.mirror = mirror and f"{mirror.rstrip('/')}/{folder.name}"

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last intact checkpoint, or None.

        Raises
        ------
        CheckpointError
            If the object store, which may have a later one, is unreachable.
        """
        here, there = self._local(), self._remote()
        for step in sorted({*here, *there}, reverse=True):
            path = self._path(step)
            if step in here and _is_whole(path, here[step]):
                return _read(path)
            if step in there and self._fetch(path, there[step]):
                write_json(path.with_suffix(".json"), vars(there[step]))
                return _read(path)
            where = path if step in here else f"{self.mirror}/{path.name}"
            print(f"{where}: damaged, going back to an earlier checkpoint", flush=True)
        return None

    def save(self, state: dict[str, Any], step: int, score: float = 0.0) -> None:
        """Save a state of tensors and plain values, and delete checkpoints no longer needed.

        `step` counts the steps done; the checkpoint with the highest score is kept besides the last
        ones.

        Raises
        ------
        OSError
            If writing fails; earlier checkpoints are kept.
        CheckpointError
            If the upload fails; the message says what is kept on disk.
        """
        path = self._path(step)
        for left in self.folder.glob(".*.tmp"):  # left by a killed process
            left.unlink(missing_ok=True)
        try:
            write_tensors(path, state)
            manifest = Manifest(step, sha256(path), score)
            write_json(path.with_suffix(".json"), vars(manifest))
        except OSError as error:
            if step not in self._local():  # useless without a manifest
                path.unlink(missing_ok=True)
            text = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise OSError(f"{text}; {self._kept_text()}") from error
        self._drop(step)
        if self.mirror:
            self._send(manifest)

    def remove(self) -> None:
        """Delete all checkpoints, once the result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.mirror:
            system, root = open_url(self.mirror)
            with contextlib.suppress(FileNotFoundError, StorageError):
                with_retries(lambda: system.rm(root, recursive=True), self.mirror)

    # ------------------------------------------------------------------------------- this machine
    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _local(self) -> dict[int, Manifest]:
        found = {}
        for path in self.folder.glob("step-*.json"):
            with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
                manifest = Manifest.read(read_json(path))
                if self._path(manifest.step).stem == path.stem:
                    found[manifest.step] = manifest
        return found

    def _drop(self, last: int) -> None:
        stay = {self._path(step).stem for step in _kept(self._local(), last, self.keep)}
        for suffix in (".json", ".pt"):  # manifests first: without one a file does not count
            for path in self.folder.glob(f"step-*{suffix}"):
                if path.stem not in stay:
                    path.unlink(missing_ok=True)

    def _kept_text(self) -> str:
        whole = [s for s, manifest in self._local().items() if _is_whole(self._path(s), manifest)]
        if not whole:
            return "no checkpoint is kept"
        return f"the checkpoint of step {max(whole)} is kept: {self._path(max(whole))}"

    # ------------------------------------------------------------------------------- object store
    def _remote(self) -> dict[int, Manifest]:
        if not self.mirror:
            return {}
        system, root = open_url(self.mirror)

        def read() -> dict[int, Manifest]:
            found = {}
            for path in system.glob(f"{root}/step-*.json"):
                try:
                    content = system.cat_file(path)
                except FileNotFoundError:  # deleted meanwhile, perhaps by a killed run's last step
                    continue
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    manifest = Manifest.read(json.loads(content))
                    if self._path(manifest.step).stem == Path(path).stem:
                        found[manifest.step] = manifest
            return found

        return self._tried(read, f"{self.mirror}: its checkpoints cannot be listed")

    def _fetch(self, path: Path, manifest: Manifest) -> bool:
        """Download a checkpoint; returns whether it is intact."""
        assert self.mirror is not None
        system, root = open_url(self.mirror)

        def get() -> None:
            try:
                with atomic(path) as temporary:
                    system.get_file(f"{root}/{path.name}", str(temporary))
            except Exception as error:
                if type(error).__name__ not in DAMAGED:
                    raise

        for _ in range(2):  # the second attempt repairs damage in transit
            if not _is_whole(path, manifest):
                self._tried(get, f"{self.mirror}/{path.name}: cannot be fetched")
        return _is_whole(path, manifest)

    def _send(self, manifest: Manifest) -> None:
        assert self.mirror is not None
        system, root = open_url(self.mirror)
        path = self._path(manifest.step)
        where = f"{self.mirror}/{path.name}"
        self._tried(lambda: send_file(system, path, f"{root}/{path.name}"), f"{where}: not sent")
        written = path.with_suffix(".json")
        self._tried(
            lambda: system.pipe_file(f"{root}/{written.name}", written.read_bytes()),
            f"{self.mirror}/{written.name}: not sent",
        )
        there = self._remote()
        for step in there.keys() - _kept(there, manifest.step, self.keep):
            for suffix in (".json", ".pt"):
                name = self._path(step).with_suffix(suffix).name
                self._tried(lambda n=name: system.rm_file(f"{root}/{n}"), f"{where}: not dropped")

    def _tried(self, call: Any, what: str) -> Any:
        try:
            return with_retries(call, what)
        except StorageError as error:
            raise CheckpointError(f"{error}; {self._kept_text()}") from error


def all_finite(state: Any) -> bool:
    """Whether no tensor in a nested state holds NaN or an infinity."""
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    inner = state.values() if isinstance(state, dict) else state
    return not isinstance(inner, Iterable) or isinstance(inner, str) or all(map(all_finite, inner))


def _is_whole(path: Path, manifest: Manifest) -> bool:
    return path.is_file() and sha256(path) == manifest.sha256


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _kept(known: dict[int, Manifest], last: int, keep: int) -> set[int]:
    """Return the steps to keep: the last ones up to `last`, and the best of those.

    Later checkpoints must be damaged, or this training would have resumed from them.
    """
    good = {step: manifest for step, manifest in known.items() if step <= last}
    best = max(good.values(), key=lambda m: (m.score, m.step)).step if good else 0
    return {*sorted(good)[-keep:], best}
