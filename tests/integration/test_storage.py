"""Checkpoints on object stores: saving, resuming elsewhere, retries and errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dxai.config.schema import TrainingParams
from dxai.datasets.base import DataError
from dxai.datasets.remote_cache import publish
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.training.checkpoints import Checkpoint, CheckpointError
from dxai.training.decomposition import DecompositionJob, train
from dxai.training.events import EventSink
from dxai.training.run import TrainingRun
from dxai.training.runtime.supervisor import launch
from dxai.utils import storage
from dxai.utils.storage import StorageError
from tests import s3
from tests.prepared import prepared_textures
from tests.unit.training import test_decomposition
from tests.unit.training.test_checkpoints import flip, loaded, state, steps_in

pytestmark = pytest.mark.slow

SETTINGS = test_decomposition.SMALL.replace(lambda_class=0.0, steps=8)
NAME = "decompose-textures-0123"


@pytest.fixture(params=["moto", "rclone"])
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> s3.Server:
    found: s3.Server = request.getfixturevalue(request.param)
    s3.use(monkeypatch, found.endpoint)
    monkeypatch.setattr(storage, "PAUSE", 0.01)
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "cache"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_textures(tmp_path_factory.mktemp("prepared"), image_size=16)


def job(folder: Path | str, **changed: Any) -> DecompositionJob:
    """Make a training with C = D, which needs only the data."""
    return DecompositionJob(str(folder), SETTINGS.replace(**changed), None, 0)


def objects(server: s3.Server, url: str) -> dict[str, bytes]:
    """Map the name of every object below a URL to its content."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    found = server.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
    return {
        item["Key"].removeprefix(f"{prefix}/"): server.client()
        .get_object(Bucket=bucket, Key=item["Key"])["Body"]
        .read()
        for item in found.get("Contents", [])
    }


def training(url: str) -> TrainingParams:
    return TrainingParams(executor="local", cpus_per_worker=1, device="cpu", storage=url)


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work as on another machine, without the first one's files."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DXAI_CACHE", str(elsewhere / "cache"))


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare every tensor exactly, and the history except for its seconds."""
    ours, theirs = found["networks"], wanted["networks"]
    for part in ("decomposer", "discriminator", "average", "average_discriminator"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part])
    assert test_decomposition.without_seconds(
        found["history"]
    ) == test_decomposition.without_seconds(wanted["history"])


# ---------------------------------------------------------------------------------- it works


def test_checkpoints_of_a_training_are_there_with_manifests(
    server: s3.Server, folder: Path, tmp_path: Path
) -> None:
    url = f"s3://{server.bucket()}/runs/checkpoints"
    here, _ = launch(job(folder), "t", NAME, tmp_path / "a", training(str(tmp_path / "local")))
    there, checkpoint = launch(job(folder), "t", NAME, tmp_path / "b", training(url))
    assert_same(there, here)
    kept = objects(server, f"{url}/{NAME}")
    for name in [name for name in kept if name.endswith(".json")]:
        manifest = json.loads(kept[name])
        assert name == f"step-{manifest['step']:09d}.json"
        content = kept[name.replace(".json", ".pt")]
        assert hashlib.sha256(content).hexdigest() == manifest["sha256"]
    steps = sorted(int(name[5:14]) for name in kept if name.endswith(".pt"))
    assert steps[-2:] == [6, 8] and len(steps) <= 3 and len(kept) == 2 * len(steps)
    local = tmp_path / "cache/checkpoints" / NAME
    assert {path.name: path.read_bytes() for path in local.iterdir()} == kept
    checkpoint.remove()
    assert not objects(server, url)
    assert not local.exists()
    checkpoint.remove()


def test_another_machine_goes_on_to_the_same_numbers(
    server: s3.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    wanted, _ = launch(job(folder), "t", NAME, tmp_path / "a", training(str(tmp_path / "local")))
    with pytest.raises(KeyboardInterrupt):
        mirrored = test_decomposition.Dies(tmp_path / "cache/checkpoints" / NAME, url)
        run = TrainingRun.open(folder, 0, mirrored, EventSink())
        train(job(folder).networks(run.data), SETTINGS, run)
    elsewhere(tmp_path, monkeypatch)
    found, checkpoint = launch(job(folder), "t", NAME, Path(".work"), training(url))
    events = [json.loads(line) for line in Path(".work/events.jsonl").read_text().splitlines()]
    assert events[0]["kind"] == "start" and events[0]["step"] == 2
    assert_same(found, wanted)
    assert checkpoint.folder == tmp_path / "elsewhere/cache/checkpoints" / NAME
    # What is complete is not trained again, here or anywhere.
    shutil.rmtree(tmp_path / "elsewhere/cache")
    again, _ = launch(job(folder), "t", NAME, Path("other"), training(url))
    assert_same(again, wanted)
    assert not Path("other").exists()


def test_the_later_one_is_loaded_wherever_it_is(server: s3.Server, tmp_path: Path) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    one, other = (Checkpoint(tmp_path / folder / "x", url) for folder in ("one", "other"))
    one.save(state(1), 1)
    other.save(state(2), 2)
    assert step_of(one) == 2
    Checkpoint(tmp_path / "one/x").save(state(3), 3)  # not sent
    assert step_of(one) == 3
    assert step_of(other) == 2


def step_of(checkpoint: Checkpoint) -> int | None:
    found = checkpoint.load()
    if found is None:
        return None
    assert (found["weights"] == found["step"]).all()
    return int(found["step"])


@pytest.mark.parametrize("keep", [1, 2])
def test_the_last_ones_and_the_best_stay_there_too(
    keep: int, server: s3.Server, tmp_path: Path
) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    checkpoint = Checkpoint(tmp_path / "x", url, keep)
    for step in range(1, 7):
        checkpoint.save(state(step), step, float(step == 2))
    wanted = sorted({2, *range(7 - keep, 7)})
    names = [f"step-{step:09d}.{suffix}" for step in wanted for suffix in ("json", "pt")]
    assert sorted(objects(server, f"{url}/x")) == names
    assert steps_in(tmp_path / "x") == wanted


# ---------------------------------------------------------------------------------- damage


def test_what_is_damaged_here_is_fetched(server: s3.Server, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "x", f"s3://{server.bucket()}/checkpoints")
    for step in (1, 2):
        checkpoint.save(state(step), step)
    flip(tmp_path / "x/step-000000002.pt")
    assert step_of(checkpoint) == 2
    assert loaded(tmp_path / "x") == 2  # and is whole again


@pytest.mark.parametrize("what", ["flipped", "cut", "no tensors", "no manifest", "odd manifest"])
def test_what_is_damaged_there_is_left_for_the_one_before(
    what: str, server: s3.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = server.bucket()
    url = f"s3://{bucket}/checkpoints"
    for step in (1, 2):
        Checkpoint(tmp_path / "x", url).save(state(step), step)
    name = "checkpoints/x/step-000000002"
    content = bytearray((tmp_path / "x/step-000000002.pt").read_bytes())
    content[2000] ^= 1
    if what == "flipped":
        server.put(bucket, f"{name}.pt", bytes(content))
    elif what == "cut":
        server.put(bucket, f"{name}.pt", bytes(content)[:1000])
    elif what == "no manifest":
        server.client().delete_object(Bucket=bucket, Key=f"{name}.json")
    elif what == "odd manifest":
        server.put(bucket, f"{name}.json", b"\xff\xfe{")
    elif what == "no tensors":
        server.client().delete_object(Bucket=bucket, Key=f"{name}.pt")
    other = Checkpoint(tmp_path / "y/x", url)
    assert step_of(other) == 1
    said = capsys.readouterr().out
    assert (f"{url}/x/step-000000002.pt: damaged" in said) == ("manifest" not in what)
    other.save(state(3), 3)  # goes on, and what was damaged is dropped there as well
    assert step_of(Checkpoint(tmp_path / "z/x", url)) == 3


# ---------------------------------------------------------------------------------- bad lines


class SpoiledUpload(s3.Proxy):
    """A proxy that spoils requests, at this byte of a connection, instead of answers."""

    asked = b""

    def _ask(self, client: socket.socket, server: socket.socket, sent: list[int]) -> None:
        start = 0
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                begin, start = start, start + len(data)
                self.asked += data[:2000].lower()
                if begin <= self.after < start and self._turn():
                    spoiled = bytearray(data)
                    if self.fault == "flip":
                        spoiled[self.after - begin] ^= 1
                        data = bytes(spoiled)
                    elif self.fault == "stall":
                        self._closed.wait()
                        break
                    else:
                        server.sendall(data[: self.after - begin])
                        break
                sent[0] = 0
                server.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket, sent: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


SIZE = 500_000
"""Numbers in a checkpoint whose transfer is spoiled: 2 MB."""
LARGE = 4_000_000
"""16 MB: more than the buffers on the way take, so that who sends it has to wait."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a second without a byte."""
    options = storage.S3_OPTIONS | {
        "config_kwargs": storage.S3_OPTIONS["config_kwargs"] | {"read_timeout": 1}
    }
    monkeypatch.setattr(storage, "S3_OPTIONS", options)
    monkeypatch.setattr(storage, "SEND_SECONDS", 2.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_an_upload_that_breaks_off_is_sent_again(
    fault: Any, server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    monkeypatch.setattr(storage, "SEND_RATE", 1e7)
    with SpoiledUpload(server, fault, after=1_000_000, times=2) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        Checkpoint(tmp_path / "x", url).save(state(1, LARGE), 1)
        assert proxy.spoiled == 2
    s3.use(monkeypatch, server.endpoint)
    assert step_of(Checkpoint(tmp_path / "y/x", url)) == 1


def test_a_change_on_the_way_up_is_found_when_it_is_read(
    server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum sent along shows it; Amazon's servers compare it at once."""
    url = f"s3://{server.bucket()}/checkpoints"
    Checkpoint(tmp_path / "x", url).save(state(1, SIZE), 1)
    with SpoiledUpload(server, "flip", after=1_000_000, times=1) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        Checkpoint(tmp_path / "x", url).save(state(2, SIZE), 2)
        assert proxy.spoiled == 1
        assert b"x-amz-checksum-crc32" in proxy.asked
    s3.use(monkeypatch, server.endpoint)
    assert step_of(Checkpoint(tmp_path / "x", url)) == 2  # of here
    assert step_of(Checkpoint(tmp_path / "y/x", url)) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["cut", "stall", "flip"])
def test_a_spoiled_download_is_fetched_again(
    fault: Any, server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    Checkpoint(tmp_path / "x", url).save(state(1, SIZE), 1)
    times = 1 if fault == "flip" else 3
    with s3.Proxy(server, fault, after=1_000_000, times=times) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        assert step_of(Checkpoint(tmp_path / "y/x", url)) == 1
        assert proxy.spoiled == times


def test_pauses_grow_before_it_is_given_up(
    server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/checkpoints"
    paused: list[float] = []
    with s3.Proxy(server, "cut", after=0, times=1000) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        monkeypatch.setattr(storage.time, "sleep", paused.append)
        with pytest.raises(CheckpointError):
            Checkpoint(tmp_path / "x", url).load()
    ours = [pause for pause in paused if pause >= storage.PAUSE]
    np.testing.assert_allclose(ours[: storage.ATTEMPTS - 1], storage.PAUSE * 2 ** np.arange(4.0))


def test_a_server_that_is_gone_for_good_leaves_the_last_one_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes in the middle of a training, which later continues to the same numbers."""
    wanted, _ = launch(job(folder), "t", NAME, tmp_path / "a", training(str(tmp_path / "local")))
    monkeypatch.setattr(storage, "PAUSE", 0.01)
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "cache/checkpoints" / NAME
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3.moto())
        s3.use(monkeypatch, server.endpoint)
        url = f"s3://{server.bucket()}/checkpoints"
        save = Checkpoint.save

        def ends(self: Checkpoint, *values: Any) -> None:
            if values[1] == 4:
                stack.close()
            save(self, *values)

        monkeypatch.setattr(Checkpoint, "save", ends)
        with pytest.raises(CheckpointError) as caught:
            launch(job(folder), "t", NAME, tmp_path / "b", training(url))
        message = str(caught.value)
        assert message.startswith(f"{url}/{NAME}/step-000000004.pt: not sent (")
        kept = here / "step-000000004.pt"
        assert message.endswith(f"; the checkpoint of step 4 is kept: {kept}")
        assert len(message.splitlines()) == 1 and s3.SECRET not in message
        monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(CheckpointError) as caught:
        launch(job(folder), "t", NAME, tmp_path / "b", training(url))
    assert f"{url}/{NAME}: its checkpoints cannot be listed (" in str(caught.value)
    assert "the checkpoint of step 4 is kept" in str(caught.value)
    local = Checkpoint(here).load()
    assert local is not None and local["step"] == 4
    with s3.moto() as server:
        s3.use(monkeypatch, server.endpoint)
        url = f"s3://{server.bucket()}/checkpoints"
        found, _ = launch(job(folder), "t", NAME, tmp_path / "b", training(url))
    assert_same(found, wanted)


@pytest.mark.parametrize("wrong", ["bucket", "key"])
def test_no_time_is_lost_on_what_no_second_try_can_mend(
    wrong: str, rclone: s3.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "cache"))
    s3.use(monkeypatch, rclone.endpoint, **({"secret": "wrong"} if wrong == "key" else {}))
    bucket = rclone.bucket() if wrong == "key" else "no-such-bucket"
    url = f"s3://{bucket}/checkpoints"
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        launch(job(folder), "t", NAME, tmp_path / "a", training(url))
    assert time.monotonic() - began < 60
    assert str(caught.value).startswith(url)
    assert "wrong" not in str(caught.value)


# ---------------------------------------------------------------------------------- data


def test_data_is_sent_once_and_read_from_there(
    server: s3.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/prepared/textures"
    publish(folder, url)
    sent = objects(server, url)
    assert {"manifest.json", "train-00000.parquet"} <= sent.keys()
    assert all((folder / name).read_bytes() == content for name, content in sent.items())
    if server.root is None:  # it tells its requests
        before = server.log.read_text().count('"PUT ')
        publish(folder, url)
        assert server.log.read_text().count('"PUT ') == before
    here, there = ShardedDataset(folder, "train"), ShardedDataset(url, "train")
    assert there.ids == here.ids and there.class_names == here.class_names
    indices = list(range(len(here)))
    assert torch.equal(there.batch(indices).images, here.batch(indices).images)
    assert (there.labels == here.labels).all()


def test_an_unfinished_upload_of_data_is_no_dataset(
    server: s3.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill before the manifest, the next upload sends missing and truncated files."""
    bucket = server.bucket()
    url = f"s3://{bucket}/prepared/textures"
    server.put(bucket, "prepared/textures/train-00000.parquet", b"too short")
    with pytest.raises((StorageError, FileNotFoundError)):
        ShardedDataset(url, "train")
    publish(folder, url)
    assert len(ShardedDataset(url, "train")) == len(ShardedDataset(folder, "train"))


def test_data_that_cannot_be_sent_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    s3.use(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises((DataError, StorageError), match=re.escape("s3://b/data/")):
        publish(folder, "s3://b/data")
