"""The unfinished state of one training, on disk and, if wanted, on an object store as well.

A checkpoint is a file of tensors and a manifest with its hash, written in this order, each of them
under a temporary name first: without a manifest that fits it does not exist.
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
"""What an object store's client raises for an object that is gone, or is not what was sent."""


class CheckpointError(ValueError):
    """A checkpoint that could not be kept; the message names the last one that was."""


@dataclass(frozen=True)
class Manifest:
    """What is known of one checkpoint.

    Attributes
    ----------
    step : int
        Steps done.
    sha256 : str
        Of the file of tensors.
    score : float
        How good it is, the higher the better.
    """

    step: int
    sha256: str
    score: float

    @classmethod
    def read(cls, content: Any) -> Manifest:
        """From JSON; raises KeyError, TypeError or ValueError for what is no manifest."""
        return cls(int(content["step"]), str(content["sha256"]), float(content["score"]))


class Checkpoint:
    """The checkpoints of one training: the last `keep` of them, and the best one.

    Parameters
    ----------
    folder : Path
        Belongs to this training alone; its name should carry a digest of all that decides the
        result, so that a run with other settings never continues from it.
    mirror : str, optional
        A URL (``s3://bucket/prefix``) that gets a copy of each, for whoever goes on elsewhere.
    keep : int
        How many are kept.
    """

    def __init__(self, folder: Path, mirror: str | None = None, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self.mirror = mirror and f"{mirror.rstrip('/')}/{folder.name}"

    def load(self) -> dict[str, Any] | None:
        """The state of the last checkpoint that is whole, or None.

        Raises
        ------
        CheckpointError
            If the object store cannot be reached: there may be a later one than here.
        """
        here, there = self._local(), self._remote()
        for step in sorted({*here, *there}, reverse=True):
            path = self._path(step)
            if step in here and _is_whole(path, here[step]):
                return _read(path)
            if step in there and self._fetch(path, there[step]):
                write_json(path.with_suffix(".json"), vars(there[step]))
                return _read(path)
            place = path if step in here else f"{self.mirror}/{path.name}"
            print(f"{place}: damaged, going back to an earlier checkpoint", flush=True)
        return None

    def save(self, state: dict[str, Any], step: int, score: float = 0.0) -> None:
        """Keep a state, and drop those that need not be kept any longer.

        Parameters
        ----------
        state : dict
            Tensors and plain values.
        step : int
            Steps done.
        score : float
            How good it is: of all checkpoints the one with the highest stays, beside the last.

        Raises
        ------
        OSError
            If the disk does not take it; the checkpoints before stay.
        CheckpointError
            If the object store does not; the message says what is kept here.
        """
        path = self._path(step)
        for left in self.folder.glob(".*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        try:
            write_tensors(path, state)
            manifest = Manifest(step, sha256(path), score)
            write_json(path.with_suffix(".json"), vars(manifest))
        except OSError as error:
            if step not in self._local():  # without a manifest, it would only take room
                path.unlink(missing_ok=True)
            text = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise OSError(f"{text}; {self._kept_text()}") from error
        self._drop(step)
        if self.mirror:
            self._send(manifest)

    def remove(self) -> None:
        """Delete all, once the result stands."""
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
        for suffix in (".json", ".pt"):  # what is left without a manifest does not count
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
                except FileNotFoundError:  # just dropped: a killed run's last step may overlap
                    continue
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    manifest = Manifest.read(json.loads(content))
                    if self._path(manifest.step).stem == Path(path).stem:
                        found[manifest.step] = manifest
            return found

        return self._tried(read, f"{self.mirror}: its checkpoints cannot be listed")

    def _fetch(self, path: Path, manifest: Manifest) -> bool:
        """Get a checkpoint; returns whether it is whole."""
        assert self.mirror is not None
        system, root = open_url(self.mirror)

        def get() -> None:
            try:
                with atomic(path) as temporary:
                    system.get_file(f"{root}/{path.name}", str(temporary))
            except Exception as error:
                if type(error).__name__ not in DAMAGED:
                    raise

        for _ in range(2):  # what was damaged on its way is so once; what is damaged there, again
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
    """Whether no tensor in a state, however deep, holds NaN or an infinity."""
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    inner = state.values() if isinstance(state, dict) else state
    return not isinstance(inner, Iterable) or isinstance(inner, str) or all(map(all_finite, inner))


def _is_whole(path: Path, manifest: Manifest) -> bool:
    return path.is_file() and sha256(path) == manifest.sha256


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _kept(known: dict[int, Manifest], last: int, keep: int) -> set[int]:
    """The steps that stay: the last ones up to `last`, and the best of them.

    Later ones were damaged, or this training would have gone on from there.
    """
    good = {step: manifest for step, manifest in known.items() if step <= last}
    best = max(good.values(), key=lambda m: (m.score, m.step)).step if good else 0
    return {*sorted(good)[-keep:], best}
