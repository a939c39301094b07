"""Lines and files of a training's events, and signals that ask it to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dxai.training.events import Console, EventSink, StopRequest

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def test_a_console_prints_progress_and_keeps_numbers_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console("decompose x", tmp_path / "new", None)
    console.emit("say", text="starting")
    console.emit("start", step=0, total=4, images=8)
    console.emit("step", done=1, note="no losses yet")  # too soon for a line
    console.emit("row", step=2, numbers={"step": 2, "loss/rec": 0.5})
    console.emit("panel", step=2, png=b"a picture")
    console.emit("start", step=2, total=4, images=8)  # again, after a failure
    console.emit("step", done=4, note="rec 0.5")
    path = tmp_path / "new/panels/step-000002.png"
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "decompose x: starting",
        f"decompose x: panel of step 2: {path}",
        "decompose x: continuing from step 2",
    ]
    assert len(said) == 4
    assert said[3].startswith("decompose x [####################] 4/4 steps, ")
    assert said[3].endswith(" images/s, rec 0.5")
    assert path.read_bytes() == b"a picture"
    lines = (tmp_path / "new/events.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    told = [(line["kind"], line["step"]) for line in kept]
    assert told == [("start", 0), ("row", 2), ("panel", 2), ("start", 2)]
    assert kept[1]["numbers"] == {"step": 2, "loss/rec": 0.5}
    assert kept[0]["total"] == 4
    assert all(line["title"] == "decompose x" for line in kept)
    times = [line["time"] for line in kept]
    assert times == sorted(times)


def test_every_word_is_a_sign_of_life(tmp_path: Path) -> None:
    console = Console("t", tmp_path)
    for kind, content in (("step", {"done": 1, "note": ""}), ("say", {"text": "x"})):
        before, console.last_event = console.last_event, 0.0
        console.emit(kind, **content)
        assert console.last_event >= before


def test_nobody_asks_an_event_sink_to_stop(tmp_path: Path) -> None:
    assert not EventSink().stopping
    assert not Console("t", tmp_path).stopping


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request(number: signal.Signals, tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with StopRequest() as stop:
        console = Console("t", tmp_path, stop)
        assert not console.stopping
        stop.answer()  # nothing to answer
        os.kill(os.getpid(), number)
        assert console.stopping
        assert stop.pending == number
    assert [signal.getsignal(n) for n in SIGNALS] == before
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):
            stop.answer()
    else:
        with pytest.raises(SystemExit) as caught:
            stop.answer()
        assert caught.value.code == 143


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_it_at_once(first: signal.Signals, second: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_in_a_thread_there_are_no_signals_to_take() -> None:
    """Only the main thread takes signals; elsewhere a training runs to its end."""
    found: list[int | None] = []

    def work() -> None:
        with contextlib.suppress(ValueError), StopRequest() as stop:
            found.append(stop.pending)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


def test_prometheus_reads_how_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "5e3f")
    console = Console("decompose x <y>", tmp_path / "a", None, tmp_path / "metrics")
    console.emit("start", step=0, total=4, images=8)
    (path,) = (tmp_path / "metrics").glob("*.prom")
    console.emit("row", step=2, numbers={"step": 2, "loss/rec": 0.5})
    console.emit("start", step=2, total=4, images=8)  # again, after a failure
    console.emit("step", done=4, note="")
    read = {
        (sample.name, sample.labels.get("name")): sample
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    assert {s.labels["training"] for s in read.values()} == {"decompose x <y>"}
    assert {s.labels["run"] for s in read.values()} == {"5e3f"}
    values = {key: sample.value for key, sample in read.items()}
    assert values["dxai_training_steps", None] == 4
    assert values["dxai_training_steps_done", None] == 4
    assert values["dxai_training_starts", None] == 2
    assert values["dxai_training_number", "loss/rec"] == 0.5
    assert values["dxai_training_images_per_second", None] > 0
    assert time.time() - values["dxai_training_seen_timestamp_seconds", None] < 60


def test_a_full_disk_for_metrics_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file, where a folder is wanted")
    console = Console("t", tmp_path / "a", None, tmp_path / "metrics")
    console.emit("start", step=0, total=4, images=8)
    console.emit("step", done=4, note="")
    assert (tmp_path / "a/events.jsonl").exists()
