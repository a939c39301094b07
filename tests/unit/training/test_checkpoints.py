"""Checkpoints are whole or absent: damage, kills, full disks, and which are kept."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dxai.training.checkpoints import Checkpoint, all_finite
from dxai.training.events import EventSink
from tests.conftest import Mount
from tests.prepared import prepared_textures
from tests.unit.training import test_decomposition


def state(step: int, size: int = 1000) -> dict[str, Any]:
    """Make a training's state in which every number is the step."""
    return {"step": step, "weights": torch.full((size,), float(step)), "history": [{"loss": 0.5}]}


def filled(folder: Path, steps: int = 3, keep: int = 2, **options: Any) -> Checkpoint:
    """Save checkpoints of some steps, each better than the one before."""
    checkpoint = Checkpoint(folder, keep=keep, **options)
    for step in range(1, steps + 1):
        checkpoint.save(state(step), step, score=step)
    return checkpoint


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the files, each with its manifest and with nothing else beside."""
    tensors = {path.stem for path in folder.glob("*.pt")}
    assert {path.name for path in folder.iterdir()} == {
        f"{stem}.{suffix}" for stem in tensors for suffix in ("pt", "json")
    }
    return sorted(int(stem.removeprefix("step-")) for stem in tensors)


def loaded(folder: Path) -> int | None:
    """Load a checkpoint, check its content, and return its step."""
    found = Checkpoint(folder).load()
    if found is None:
        return None
    assert found.keys() == {"step", "weights", "history"}
    assert (found["weights"] == found["step"]).all()
    return int(found["step"])


# ---------------------------------------------------------------------------- which of them stay


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new/one")
    assert checkpoint.load() is None
    kept = state(7) | {"nested": {"moments": [torch.ones(2), 0.1, None, "text"]}}
    checkpoint.save(kept, 7)
    found = Checkpoint(tmp_path / "new/one").load()
    assert found is not None
    torch.testing.assert_close(found["nested"]["moments"][0], torch.ones(2))
    assert found["nested"]["moments"][1:] == [0.1, None, "text"]


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("best", [1, 4, 6])
def test_the_last_ones_and_the_best_stay(keep: int, best: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, keep=keep)
    for step in range(1, 7):
        checkpoint.save(state(step), step, score=float(step == best))
    assert steps_in(tmp_path) == sorted({*range(7 - keep, 7), best})
    assert loaded(tmp_path) == 6


def test_of_equally_good_ones_the_last_is_the_best(tmp_path: Path) -> None:
    filled(tmp_path, steps=0)
    checkpoint = Checkpoint(tmp_path, keep=1)
    for step in range(1, 5):
        checkpoint.save(state(step), step)
    assert steps_in(tmp_path) == [4]


def test_manifests_hold_the_hash_that_other_programs_compute(tmp_path: Path) -> None:
    filled(tmp_path, steps=1)
    said = subprocess.run(
        ["sha256sum", tmp_path / "step-000000001.pt"], capture_output=True, text=True, check=True
    )
    manifest = json.loads((tmp_path / "step-000000001.json").read_text())
    assert manifest == {"step": 1, "sha256": said.stdout.split()[0], "score": 1.0}


def test_removed_is_removed(tmp_path: Path) -> None:
    checkpoint = filled(tmp_path / "one")
    checkpoint.remove()
    assert not (tmp_path / "one").exists()
    assert checkpoint.load() is None
    checkpoint.remove()  # again


# ------------------------------------------------------------------------------------------ damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_manifest(path: Path) -> None:
    path.with_suffix(".json").unlink()


def half_a_manifest(path: Path) -> None:
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text()[:20])


def no_text(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\xff\xfe\x00{")


def other_json(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2]")


def manifest_of_another(path: Path) -> None:
    shutil.copy(path.with_name("step-000000002.json"), path.with_suffix(".json"))


def hash_of_another(path: Path) -> None:
    content = json.loads(path.with_name("step-000000002.json").read_text())
    path.with_suffix(".json").write_text(json.dumps(content | {"step": 3}))


def no_tensors(path: Path) -> None:
    path.unlink()


def swapped(path: Path) -> None:
    shutil.copy(path.with_name("step-000000002.pt"), path)


@pytest.mark.parametrize(
    "damage",
    [
        cut, flip, no_manifest, half_a_manifest, no_text, other_json,
        manifest_of_another, hash_of_another, no_tensors, swapped,
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_never_loaded(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before is loaded, and the next one saved is the last again."""
    filled(tmp_path)
    path = tmp_path / "step-000000003.pt"
    damage(path)
    assert loaded(tmp_path) == 2
    said = capsys.readouterr().out
    # Without a manifest it never was one.
    if damage in (cut, flip, hash_of_another, no_tensors, swapped):
        assert said == f"{path}: damaged, going back to an earlier checkpoint\n"
    else:
        assert said == ""
    Checkpoint(tmp_path, keep=1).save(state(30), 30, score=9.0)
    assert steps_in(tmp_path) == [30]


def test_with_all_of_them_damaged_it_starts_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path)
    for path in tmp_path.glob("*.pt"):
        flip(path)
    assert loaded(tmp_path) is None
    assert capsys.readouterr().out.count(": damaged,") == 2


@pytest.mark.parametrize("keep", [1, 2])
def test_what_follows_a_damaged_one_stays_although_its_step_is_less(
    keep: int, tmp_path: Path
) -> None:
    """Of 10, 20 and 30 the last is lost; a training resumes from 20 and is stopped at 25."""
    for step, score in ((10, 3.0), (20, 2.0), (30, 1.0)):
        Checkpoint(tmp_path, keep=2).save(state(step), step, score)
    flip(tmp_path / "step-000000030.pt")
    assert loaded(tmp_path) == 20
    Checkpoint(tmp_path, keep=keep).save(state(25), 25, 0.0)
    assert loaded(tmp_path) == 25
    assert steps_in(tmp_path) == ([10, 25] if keep == 1 else [10, 20, 25])


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / ".step-000000004.pt.123.tmp").write_bytes(b"half of it")
    (tmp_path / ".step-000000003.json.123.tmp").write_text("{")
    (tmp_path / "step-000000004.pt").write_bytes(b"killed before its manifest")
    assert loaded(tmp_path) == 3
    Checkpoint(tmp_path).save(state(5), 5, 9.0)
    assert steps_in(tmp_path) == [3, 5]


def test_a_training_goes_on_from_the_one_before_to_the_same_numbers(tmp_path: Path) -> None:
    folder = prepared_textures(tmp_path, image_size=16)
    whole, history = test_decomposition.run(folder, Checkpoint(tmp_path / "a"))
    four = test_decomposition.SMALL.replace(steps=4)
    test_decomposition.run(folder, Checkpoint(tmp_path / "b"), four)
    cut(tmp_path / "b/step-000000004.pt")
    seen = test_decomposition.Seen()
    again, second = test_decomposition.run(folder, Checkpoint(tmp_path / "b"), events=seen)
    assert seen.of("start")[0]["step"] == 2
    assert test_decomposition.without_seconds(second) == test_decomposition.without_seconds(history)
    test_decomposition.assert_equal_weights(whole.average, again.average)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_found_wherever_they_are(value: float) -> None:
    wrong = torch.tensor([0.0, value])
    assert all_finite({"a": [torch.ones(2), {"b": (1, "nan", None)}], "c": torch.ones(2).long()})
    assert not all_finite({"a": [torch.ones(2), {"b": (1, wrong)}]})


# ------------------------------------------------------------------------------------------- kills

FORK = multiprocessing.get_context("fork")


def save_for_ever(folder: Path, tell: Any) -> None:
    torch.set_num_threads(1)  # threads that were there before the fork are not here
    checkpoint, step = Checkpoint(folder), loaded(folder) or 0
    while True:
        tell.send(step)
        step += 1
        checkpoint.save(state(step, 200_000), step, score=-step)


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_last_one_that_was_saved(tmp_path: Path) -> None:
    """Of thirty or more, the last that `save` finished is there, or the one being written."""
    rng = np.random.default_rng(0)
    folder, last, halves = tmp_path / "kept", 0, 0
    for kill in range(300):
        if kill >= 30 and last > 10 and halves:
            break
        hear, tell = FORK.Pipe()
        process = FORK.Process(target=save_for_ever, args=(folder, tell), daemon=True)
        process.start()
        tell.close()
        assert hear.recv() == last
        time.sleep(rng.uniform(0, 0.04))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = hear.recv()
        halves += any(folder.glob(".*.tmp"))
        found = loaded(folder) or 0
        assert found in (last, last + 1)
        last = found
    assert last > 10
    assert halves > 0  # some of them came while a file was being written
    Checkpoint(folder).save(state(last + 1), last + 1, -last)
    assert steps_in(folder) == [1, last, last + 1]


# --------------------------------------------------------------------------------------- full disks


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit on the size of files stands in for the disk: the write itself fails, for root too."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 50, 3000])
def test_a_full_disk_is_an_error_that_names_what_is_kept(size: int, tmp_path: Path) -> None:
    """The disk is full before the first byte, within the manifest or within the tensors."""
    checkpoint = filled(tmp_path, steps=2)
    small = {"step": 3} if size == 50 else state(3)
    with files_of_at_most(size), pytest.raises(OSError) as caught:
        checkpoint.save(small, 3, score=3.0)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{tmp_path}/step-000000003.pt: cannot be written")
    kept = tmp_path / "step-000000002.pt"
    assert message.endswith(f"; the checkpoint of step 2 is kept: {kept}")
    assert steps_in(tmp_path) == [1, 2]
    with files_of_at_most(0):
        assert loaded(tmp_path) == 2  # reading needs no room
    checkpoint.save(state(3), 3, score=3.0)
    assert loaded(tmp_path) == 3


def test_a_full_disk_at_the_first_checkpoint(tmp_path: Path) -> None:
    with files_of_at_most(3000), pytest.raises(OSError, match=r"; no checkpoint is kept$"):
        Checkpoint(tmp_path).save(state(1), 1)
    assert steps_in(tmp_path) == []


def test_a_file_system_without_room(mount: Mount) -> None:
    if (small_disk := mount("1m")) is None:
        return  # tests cannot mount here; the limit above is for everybody
    checkpoint = Checkpoint(small_disk / "kept", keep=5)
    with pytest.raises(OSError) as caught:
        for step in range(1, 10):
            checkpoint.save(state(step, 60_000), step, score=step)
    last = step - 1
    assert 2 <= last <= 5
    message = str(caught.value)
    assert message.startswith(f"{small_disk}/kept/step-{step:09d}.pt: cannot be written")
    assert f"the checkpoint of step {last} is kept: " in message
    assert steps_in(small_disk / "kept") == list(range(1, step))
    assert loaded(small_disk / "kept") == last


def test_a_training_on_a_full_disk_ends_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    folder = prepared_textures(tmp_path, image_size=16)
    whole, history = test_decomposition.run(folder, Checkpoint(tmp_path / "a"))
    checkpoint = Checkpoint(tmp_path / "b")

    class Full(EventSink):
        """Fill the disk after three steps."""

        def emit(self, kind: str, **content: Any) -> None:
            if kind == "step" and content["done"] == 3:
                stack.enter_context(files_of_at_most(3000))

    with contextlib.ExitStack() as stack, pytest.raises(OSError) as caught:
        test_decomposition.run(folder, checkpoint, events=Full())
    assert "the checkpoint of step 2 is kept" in str(caught.value)
    again, second = test_decomposition.run(folder, checkpoint)
    assert test_decomposition.without_seconds(second) == test_decomposition.without_seconds(history)
    test_decomposition.assert_equal_weights(whole.average, again.average)
