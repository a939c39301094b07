"""Raw images, prepared shards and DVC's cache on object stores, with their failures."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dxai.config.params_file import load_params, read_yaml
from dxai.config.profiles import CATALOGUE as CATALOGUE_FILE
from dxai.config.schema import DatasetParams
from dxai.config.settings import parse
from dxai.datasets import parallel_reader
from dxai.datasets.base import DataError
from dxai.datasets.prepare import prepare
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.samples import shapes
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import open_source
from dxai.training.checkpoints import Checkpoint
from dxai.training.decomposition import train
from dxai.training.events import EventSink
from dxai.training.run import TrainingRun
from dxai.utils import storage
from dxai.utils.storage import StorageError
from tests import s3
from tests.integration.conftest import Project
from tests.prepared import prepared_textures
from tests.unit.training import test_decomposition

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = read_yaml(CATALOGUE_FILE)["datasets"]
DRAWN = {d["layout"]: d for d in CATALOGUE.values() if LAYOUTS[d["layout"]].render_sample}
FORK = multiprocessing.get_context("fork")
NEVER = 3600.0
"""A pause between two tries that no test lives to see the end of."""


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> s3.Server:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSE", 0.01)


def error(call: Callable[[], Any]) -> str:
    """Return the message of the error that a call raises: one line, without credentials."""
    with pytest.raises((DataError, StorageError)) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert not any(secret in message for secret in (s3.KEY, s3.SECRET, "wrong"))
    return message


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(dataset: DatasetParams, out: Path, workers: int = 1) -> dict[str, bytes]:
    """Prepare a dataset, and return its files."""
    params = load_params(ROOT / "params.yaml")
    params = params.replace(datasets={"mine": dataset})
    prepare("mine", params, out, out.with_name(f"{out.name}.work"), workers)
    return content(out)


# ---------------------------------------------------------------------------------- it works


@pytest.mark.parametrize("layout", DRAWN)
def test_every_layout_from_an_object_store_gives_the_same_bytes(
    layout: str, rclone: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = parse(DatasetParams, DRAWN[layout] | {"release": None}, layout)
    draw = LAYOUTS[layout].render_sample
    assert draw is not None
    drawn = sys.modules[draw.__module__]
    if hasattr(drawn, "COUNTS"):  # each image costs a request
        monkeypatch.setattr(drawn, "COUNTS", tenth(drawn.COUNTS))
    draw(tmp_path / "raw", dataset.options)
    url = rclone.upload(tmp_path / "raw", rclone.bucket(), "raw")
    s3.use(monkeypatch, rclone.endpoint)
    here = run(dataset.replace(source=str(tmp_path / "raw")), tmp_path / "here")
    there = run(dataset.replace(source=url), tmp_path / "there")
    assert there == here
    assert {"manifest.json", "card.html", "test-00000.parquet"} < here.keys()


def tenth(counts: Any) -> Any:
    """Return a tenth of each number of images, at least eight."""
    if isinstance(counts, dict):
        return {name: tenth(count) for name, count in counts.items()}
    if isinstance(counts, tuple):
        return tuple(map(tenth, counts))
    return max(8, counts // 10)


def photographs(folder: Path, sizes: dict[str, int], count: int) -> None:
    """Write seeded noise, `count` images in each folder of `sizes`, which gives their widths."""
    rng = np.random.default_rng(0)
    for subfolder, i in itertools.product(sizes, range(count)):
        path = folder / subfolder / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (sizes[subfolder], sizes[subfolder], 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


SUBFOLDERS = ("train/a", "train/b", "test/a", "test/b")


@pytest.mark.parametrize("table", [None, "all.csv"], ids=["folders", "table"])
def test_prepared_from_an_object_store_is_the_same_bytes(
    server: s3.Server, table: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    photographs(raw, dict.fromkeys(SUBFOLDERS, 20), 4)
    rows = [
        f"{subfolder}/{i}.png,{subfolder[-1]},{subfolder[:-2]}"
        for subfolder in SUBFOLDERS
        for i in range(4)
    ]
    (raw / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    url = server.upload(raw, server.bucket(), "raw")
    s3.use(monkeypatch, server.endpoint)
    dataset = DatasetParams(layout="folder", source=str(raw), options={"table": table})
    here = run(dataset, tmp_path / "here")
    there = run(dataset.replace(source=url), tmp_path / "there")
    assert there == here
    assert {"manifest.json", "card.html", "test-00000.parquet"} < here.keys()


def test_prepared_by_several_processes_is_the_same_bytes(
    moto: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path / "raw", dict.fromkeys(SUBFOLDERS, 512), 6)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    assert size > parallel_reader.SERIAL_BYTES  # else one process reads it
    url = moto.upload(tmp_path / "raw", moto.bucket(), "raw")
    s3.use(monkeypatch, moto.endpoint)
    here = run(DatasetParams(layout="folder", source=str(tmp_path / "raw")), tmp_path / "here")
    script = (
        "from pathlib import Path; from dxai.config.schema import DatasetParams;"
        "from tests.integration.test_s3 import run;"
        f"run(DatasetParams(layout='folder', source={url!r}), "
        f"Path({str(tmp_path / 'there')!r}), workers=2)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)
    assert content(tmp_path / "there") == here
    # Each object was asked for once, by whichever process.
    assert moto.requests("GET", f"{url.removeprefix('s3:/')}/train/a/0.png") == 1


KEYS = [
    "a b/猫 🐈.png",
    "a b/ leading and trailing .png",
    "x+y%20z.png",
    "was#&=*[1]~$HOME.png",
    "ü/u\u0308.png",
    "מים/水.JPG",
    "no suffix",
    "deep/" * 30 + "x",
]


def test_names_in_any_script(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = server.bucket()
    for key in KEYS:
        server.put(bucket, f"raw data/{key}", key.encode())
    server.put(bucket, "raw data/.git/config", b"hidden")
    server.put(bucket, "raw data/a b/.DS_Store", b"hidden")
    server.put(bucket, "raw data and more/x.png", b"elsewhere")
    s3.use(monkeypatch, server.endpoint)
    found = open_source(f"s3://{bucket}/raw data/")
    assert {file.name: found.load(file).decode() for file in found.files()} == {k: k for k in KEYS}
    assert [file.name for file in found.files()] == sorted(KEYS)


def test_a_whole_bucket_and_what_stands_for_its_folders(
    moto: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto.bucket()
    for key in ("a/", "a/b/", "a/b/1.png", "2.png"):
        moto.put(bucket, key, b"" if key.endswith("/") else key.encode())
    s3.use(monkeypatch, moto.endpoint)
    assert [file.name for file in open_source(f"s3://{bucket}").files()] == ["2.png", "a/b/1.png"]
    assert [file.name for file in open_source(f"s3://{bucket}/a").files()] == ["b/1.png"]


def test_a_listing_of_several_pages(moto: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 lists a thousand objects per page."""
    bucket, keys = moto.bucket(), [f"raw/{i % 7}/{i:05d}.png" for i in range(1100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: moto.put(bucket, key, b"x"), keys))
    s3.use(monkeypatch, moto.endpoint)
    names = [file.name for file in open_source(f"s3://{bucket}/raw").files()]
    assert names == sorted(key.removeprefix("raw/") for key in keys)


# ---------------------------------------------------------------------------------- it goes wrong


@pytest.fixture
def bucket(moto: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a bucket with an image of 300 kB and a small one below `raw`."""
    bucket = moto.bucket()
    moto.put(bucket, "raw/a.png", BODY)
    moto.put(bucket, "raw/b.png", b"small")
    s3.use(monkeypatch, moto.endpoint)
    return bucket


BODY = np.random.default_rng(1).bytes(300_000)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"key": "AKIAwrong"}, "The Access Key Id you provided does not exist in our records."),
        ({"secret": "wrong"}, "The request signature we calculated does not match"),
    ],
)
def test_wrong_credentials(
    rclone: s3.Server, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    bucket = rclone.bucket()
    rclone.put(bucket, "raw/a.png", b"a")
    s3.use(monkeypatch, rclone.endpoint)
    found = open_source(f"s3://{bucket}/raw")
    (file,) = found.files()
    s3.use(monkeypatch, rclone.endpoint, **wrong)
    assert error(found.files).startswith(f"s3://{bucket}/raw: cannot be listed ({reason}")
    assert error(lambda: found.load(file)).startswith(
        f"s3://{bucket}/raw/a.png: cannot be read ({reason}"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, "Partial credentials found in env"),
    ],
)
def test_no_credentials(
    bucket: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    message = error(open_source(f"s3://{bucket}/raw").files)
    assert message.startswith(f"s3://{bucket}/raw: cannot be listed ({reason}")


def test_credentials_of_a_profile(
    rclone: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone.bucket()
    rclone.put(bucket, "raw/a.png", b"a")
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {s3.KEY}\naws_secret_access_key = {s3.SECRET}\n"
    )
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {rclone.endpoint}\n")
    s3.use(monkeypatch, rclone.endpoint)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = open_source(f"s3://{bucket}/raw")
    assert [found.load(file) for file in found.files()] == [b"a"]


def test_a_bucket_or_prefix_that_is_missing(
    server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    bucket = server.bucket()
    server.put(bucket, "raw/a.png", b"a")
    s3.use(monkeypatch, server.endpoint)
    message = error(open_source("s3://no-such-bucket/raw").files)
    assert message == (
        "s3://no-such-bucket/raw: cannot be listed (The specified bucket does not exist)"
    )
    for prefix in ("ra", "raw/a", "raw/a.png"):
        message = error(open_source(f"s3://{bucket}/{prefix}").files)
        assert message == (f"s3://{bucket}/{prefix}: no such bucket or prefix, or no files in it")


def test_an_object_that_goes_after_it_was_listed(
    server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    bucket = server.bucket()
    server.put(bucket, "raw/a.png", b"a")
    s3.use(monkeypatch, server.endpoint)
    found = open_source(f"s3://{bucket}/raw")
    (file,) = found.files()
    server.client().delete_object(Bucket=bucket, Key="raw/a.png")
    message = error(lambda: found.load(file))
    assert re.fullmatch(
        rf"s3://{bucket}/raw/a\.png: cannot be read \(.*(exist|NoSuchKey).*\)", message
    )


@pytest.mark.parametrize("body", [b"same!", b"longer than that", b"sam", b""])
def test_an_object_that_is_replaced_after_it_was_listed(
    server: s3.Server, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    bucket = server.bucket()
    server.put(bucket, "raw/a.png", b"same?")
    s3.use(monkeypatch, server.endpoint)
    found = open_source(f"s3://{bucket}/raw")
    (file,) = found.files()
    assert found.load(file) == b"same?"  # an answer that must not be remembered
    server.put(bucket, "raw/a.png", body)
    message = error(lambda: found.load(file))
    assert message == f"s3://{bucket}/raw/a.png: changed while the dataset was being read"


def test_the_same_content_written_again_is_no_change(bucket: str, moto: s3.Server) -> None:
    found = open_source(f"s3://{bucket}/raw")
    file, _ = found.files()
    moto.put(bucket, "raw/a.png", BODY)
    assert found.load(file) == BODY


@pytest.mark.parametrize("fault", ["cut", "stall", "flip"])
@pytest.mark.parametrize("after", [0, 100_000], ids=["at-once", "midway"])
def test_a_few_spoiled_answers_are_mended(
    bucket: str, moto: s3.Server, monkeypatch: pytest.MonkeyPatch, fault: Any, after: int
) -> None:
    """A changed byte of the body is found by the checksum that the object was written with."""
    monkeypatch.setitem(storage.S3_OPTIONS["config_kwargs"], "read_timeout", 0.5)
    found = open_source(f"s3://{bucket}/raw")
    file, _ = found.files()
    with s3.Proxy(moto, fault, after, times=storage.ATTEMPTS - 1) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        assert found.load(file) == BODY
        assert proxy.spoiled == storage.ATTEMPTS - 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", "Response payload is not completed"),
        ("stall", "timed out"),
        ("flip", "Expected checksum"),
    ],
)
def test_spoiled_answers_are_given_up(
    bucket: str, moto: s3.Server, monkeypatch: pytest.MonkeyPatch, fault: Any, reason: str
) -> None:
    monkeypatch.setitem(storage.S3_OPTIONS["config_kwargs"], "read_timeout", 0.3)
    found = open_source(f"s3://{bucket}/raw")
    file, _ = found.files()
    with s3.Proxy(moto, fault, after=100_000, times=1000) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        message = error(lambda: found.load(file))
        assert message.startswith(f"s3://{bucket}/raw/a.png: cannot be read ({reason}")
        assert proxy.spoiled == storage.ATTEMPTS


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_server_that_does_not_answer(
    bucket: str, moto: s3.Server, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setitem(storage.S3_OPTIONS["config_kwargs"], "read_timeout", 0.3)
    with s3.Proxy(moto, fault, after=0, times=1000) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        message = error(open_source(f"s3://{bucket}/raw").files)
        assert message.startswith(f"s3://{bucket}/raw: cannot be listed (")
        # aiohttp asks once more by itself where a connection closes before the answer.
        assert proxy.spoiled == storage.ATTEMPTS * (2 if fault == "cut" else 1)


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    s3.use(monkeypatch, f"http://127.0.0.1:{port}")
    start = time.monotonic()
    message = error(open_source("s3://bucket/raw").files)
    assert message.startswith(
        's3://bucket/raw: cannot be listed (Could not connect to the endpoint URL: "http://127'
    )
    assert time.monotonic() - start < 3


def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between five attempts there are 1 + 2 + 4 + 8 pauses."""
    monkeypatch.setattr(storage, "PAUSE", 0.03)
    tries = []

    def fail() -> None:
        tries.append(time.monotonic())
        raise ConnectionResetError("reset by peer")

    assert error(lambda: storage.with_retries(fail, "it")) == "it (reset by peer)"
    np.testing.assert_allclose(np.diff(tries), [0.03, 0.06, 0.12, 0.24], atol=0.05)


@pytest.mark.parametrize("during", ["an answer", "a pause"])
def test_an_interrupt_ends_the_wait(
    bucket: str, moto: s3.Server, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    monkeypatch.setattr(storage, "PAUSE", NEVER)
    fault: Any = {"an answer": "stall", "a pause": "cut"}[during]
    with s3.Proxy(moto, fault, after=0, times=1000) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        hear, tell = FORK.Pipe(duplex=False)

        def ask() -> None:
            try:
                open_source(f"s3://{bucket}/raw").files()
            except KeyboardInterrupt:
                tell.send("interrupted")

        process = FORK.Process(target=ask, daemon=True)
        process.start()
        while not proxy.spoiled:
            time.sleep(0.01)
        assert not hear.poll(0.3)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        assert hear.poll(5) and hear.recv() == "interrupted"
        process.join()


@pytest.mark.parametrize(
    "key",
    ["../up.png", "a/../b.png", "./a.png", "/etc/passwd", "a//b.png", "a\\b.png", "a\x01.png"],
)
def test_a_key_that_is_no_plain_path(bucket: str, moto: s3.Server, key: str) -> None:
    moto.put(bucket, f"raw/{key}", b"x")
    message = error(open_source(f"s3://{bucket}/raw").files)
    assert message == f"s3://{bucket}/raw: {key!r} is not a plain path below it"


def test_a_folder_with_content_of_its_own(bucket: str, moto: s3.Server) -> None:
    """An object `x/` with content would otherwise be left out silently."""
    moto.put(bucket, "raw/x/", b"content")
    message = error(open_source(f"s3://{bucket}/raw").files)
    assert message == f"s3://{bucket}/raw: 'x/' is not a plain path below it"


def test_a_failed_preparation_names_the_object_and_leaves_nothing(
    moto: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small answers pass; those of large images are cut again and again."""
    photographs(tmp_path / "raw", dict.fromkeys(SUBFOLDERS, 8) | {"train/b": 300}, 2)
    url = moto.upload(tmp_path / "raw", moto.bucket(), "raw")
    with s3.Proxy(moto, "cut", after=100_000, times=1000) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        message = error(lambda: run(DatasetParams(layout="folder", source=url), tmp_path / "out"))
    assert message.startswith(f"dataset mine: {url}/train/b/0.png: cannot be read (")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------- training


def test_training_on_shards_of_an_object_store_gives_the_same_weights(
    moto: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = prepared_textures(tmp_path / "prepared")
    url = moto.upload(here, moto.bucket(), "prepared/textures")
    s3.use(monkeypatch, moto.endpoint)
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "cache"))
    params = test_decomposition.SMALL.replace(steps=4)

    def weights(folder: Path | str, name: str) -> dict[str, torch.Tensor]:
        data, networks = test_decomposition.start(folder, params)
        validation = ShardedDataset(folder, "validation")
        train(
            networks,
            params,
            TrainingRun(data, validation, 0, Checkpoint(tmp_path / name), EventSink()),
        )
        return networks.average.state_dict() | networks.discriminator.state_dict()

    local, remote = weights(here, "local"), weights(url, "remote")
    assert all(torch.equal(local[name], remote[name]) for name in local)
    assert moto.requests("GET", f"{url.removeprefix('s3:/')}/train-00000.parquet") == 1


# ---------------------------------------------------------------------------------- DVC


@pytest.mark.timeout(900)
def test_dvc_follows_the_bucket_and_keeps_its_cache_in_another(
    make_project: Callable[..., Project], rclone: s3.Server, tmp_path: Path
) -> None:
    raw, cache = rclone.bucket(), rclone.bucket()
    shapes.render_sample(tmp_path / "raw")
    url = rclone.upload(tmp_path / "raw", raw, "shapes")
    project = make_project()
    project.environment |= s3.environment(rclone.endpoint)
    project.select(profile="smoke", datasets=["shapes"], overrides={"datasets.shapes.source": url})

    def dvc(*arguments: str) -> str:
        done = project.run("dvc", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    repro = ("repro", "prepare@shapes")
    assert "Running stage 'prepare@shapes'" in dvc(*repro)
    first = content(project.root / "data/prepared/shapes")
    assert "Running" not in dvc(*repro)
    (key, *_) = sorted((tmp_path / "raw").glob("train/*/*"))
    Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(key)
    rclone.upload(tmp_path / "raw", raw, "shapes")
    assert "Running stage 'prepare@shapes'" in dvc(*repro)
    second = content(project.root / "data/prepared/shapes")
    assert second.keys() == first.keys() and second != first

    dvc("remote", "add", "-d", "lab", f"s3://{cache}/dvc")
    dvc("remote", "modify", "--local", "lab", "endpointurl", rclone.endpoint)
    assert "pushed" in dvc("push", "prepare@shapes")
    shutil.rmtree(project.root / "data/prepared")
    shutil.rmtree(project.root / ".dvc/cache")
    dvc("pull", "prepare@shapes")
    assert content(project.root / "data/prepared/shapes") == second
    assert "Running" not in dvc(*repro)

    for path in project.root.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert s3.KEY.encode() not in text and s3.SECRET.encode() not in text, path
