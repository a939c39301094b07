"""The message at the end of a run, and a real webhook that receives it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import webhook
from tests.servers import serving
from tests.webhook_receiver import Hook

SECRET = "T0K3N-of-the-webhook"
HEAD = "profile,dataset,classifier,method,sign,seed,status,reason,images,accuracy,auc"
TABLE = f"""{HEAD},auc_low,auc_high,delta_low,delta_high
smoke,textures,simple,dxai,part,0,ok,,24,0.9,0.7,0.6,0.8,-0.2,-0.1
smoke,textures,simple,ig,signed,,ok,,24,0.9,0.85,0.8,0.9,,
"""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(webhook, "PAUSE", 0.0)
    with serving(Hook()) as server:
        monkeypatch.setenv(webhook.URL, f"{server.url}/{SECRET}")
        yield server


@pytest.fixture
def body(tmp_path: Path) -> dict[str, object]:
    table = tmp_path / "table1.csv"
    table.write_text(TABLE)
    return webhook.message("r", "http://p/r", "Failed", "worse", table, "auc/d: 0.7 -> 0.8")


def test_a_message_has_the_table_and_what_changed(body: dict[str, object]) -> None:
    text = str(body["text"])
    assert text.startswith("dxai: run r Failed: worse\n\nhttp://p/r\n\n```\ntextures / simple")
    assert "0.700*" in text
    assert text.endswith("```\n\nauc/d: 0.7 -> 0.8")
    assert [row["method"] for row in body["table1"]] == ["dxai", "ig"]  # type: ignore[attr-defined]


def test_a_run_that_ended_early_sends_no_old_table() -> None:
    sent = webhook.message("r", "http://p/r", "Crashed", "", None, "")
    assert sent["text"] == "dxai: run r Crashed\n\nhttp://p/r"
    assert sent["table1"] == []


def test_the_webhook_gets_it(hook: Hook, body: dict[str, object]) -> None:
    assert webhook.send(body) == "notified the webhook at 127.0.0.1"
    assert hook.got == [body]


def test_a_busy_webhook_is_asked_again(hook: Hook, body: dict[str, object]) -> None:
    hook.failures = [503, 500]
    assert webhook.send(body).startswith("notified")
    assert hook.got == [body]


@pytest.mark.parametrize(("failures", "left"), [([404, 404], 1), ([500] * 4, 1)])
def test_one_that_refuses_is_named_without_its_address(
    hook: Hook, body: dict[str, object], failures: list[int], left: int
) -> None:
    hook.failures = list(failures)
    said = webhook.send(body)
    assert f"it answered {failures[0]}" in said
    assert SECRET not in said
    assert len(hook.failures) == left  # what is wrong stays wrong; what is busy is asked thrice
    assert not hook.got


@pytest.mark.parametrize("kind", ["closed", "nonsense"])
def test_one_that_is_not_there_is_named_without_its_address(
    monkeypatch: pytest.MonkeyPatch, body: dict[str, object], kind: str
) -> None:
    monkeypatch.setattr(webhook, "PAUSE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = {"closed": f"http://127.0.0.1:{port}/{SECRET}", "nonsense": f"ftp//{SECRET}"}[kind]
    monkeypatch.setenv(webhook.URL, address)
    said = webhook.send(body)
    assert "notified" in said
    assert SECRET not in said


def test_without_a_webhook_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, body: dict[str, object]
) -> None:
    monkeypatch.delenv(webhook.URL, raising=False)
    assert webhook.send(body) == ""
