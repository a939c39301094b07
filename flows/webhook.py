"""Notify a webhook when a run ends."""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dxai.reporting.text import format_table
from dxai.results.io import Row, read_table

URL = "DXAI_WEBHOOK"
"""Environment variable with the address, a secret; only its host is ever printed."""
TRIES, PAUSE, TIMEOUT = 3, 2.0, 10.0


def message(
    run: str, url: str, state: str, reason: str, table: Path | None, changed: str
) -> dict[str, Any]:
    """Build the body of the request: `text` for chat programs, the other fields for others.

    `url` is the run's page, `state` its final state with the message `reason`, `table` the file of
    Table 1, and `changed` the differences from the last accepted run, as Markdown.
    """
    rows: list[Row] = []
    parts = [f"dxai: run {run} {state}" + (f": {reason}" if reason else ""), url]
    if table is not None and table.exists():
        rows = read_table(table)
        parts.append(f"```\n{format_table(table)}\n```")
    about = {"run": run, "url": url, "state": state, "reason": reason}
    text = "\n\n".join(filter(None, [*parts, changed]))
    return {"text": text, **about, "table1": rows, "changed": changed}


def send(body: dict[str, Any]) -> str:
    """Post a message to the webhook, if set; returns a line about the outcome, or "".

    A failing webhook never fails the run.
    """
    address = os.environ.get(URL, "")
    if not address:
        return ""
    host = urlsplit(address).hostname or "?"
    if urlsplit(address).scheme not in ("http", "https"):
        return f"{URL} is not an http(s) address; no webhook was notified"
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    reason = ""
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return f"notified the webhook at {host}"
        except urllib.error.HTTPError as error:  # its text might contain the address
            reason = f"it answered {error.code}"
            if error.code < 500:
                break
        except (OSError, ValueError) as error:
            reason = type(getattr(error, "reason", error)).__name__
        if attempt < TRIES - 1:
            time.sleep(PAUSE)
    return f"the webhook at {host} could not be notified: {reason}"
