"""What a run tells those who do not look: a message to a webhook when it has ended."""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dxai.reporting.text import format_table
from dxai.utils.files import read_rows

URL = "DXAI_WEBHOOK"
"""Environment variable with the address; it is a secret, and is never printed whole."""
TRIES, PAUSE, TIMEOUT = 3, 2.0, 10.0


def message(
    run: str, url: str, state: str, reason: str, table: Path | None, changed: str
) -> dict[str, Any]:
    """The body of the request.

    Parameters
    ----------
    run, url : str
        The run's name, and its page.
    state, reason : str
        How it ended.
    table : Path, optional
        Table 1 of this run.
    changed : str
        Markdown: what differs from the run before.

    Returns
    -------
    dict
        `text`, which chat programs show; and `run`, `url`, `state`, `reason`, `table1`, `changed`
        for programs.
    """
    rows: list[dict[str, str]] = []
    parts = [f"dxai: run {run} {state}" + (f": {reason}" if reason else ""), url]
    if table is not None and table.exists():
        rows = read_rows(table)
        parts.append(f"```\n{format_table(table)}\n```")
    about = {"run": run, "url": url, "state": state, "reason": reason}
    text = "\n\n".join(filter(None, [*parts, changed]))
    return {"text": text, **about, "table1": rows, "changed": changed}


def send(body: dict[str, Any]) -> str:
    """Post it to the webhook, if there is one; returns a line on how that went, or nothing.

    A webhook that fails never fails the run.
    """
    address = os.environ.get(URL, "")
    if not address:
        return ""
    host = urlsplit(address).hostname or "?"
    if urlsplit(address).scheme not in ("http", "https"):
        return f"{URL} is no http(s) address; nobody was told"
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    reason = ""
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return f"told the webhook at {host}"
        except urllib.error.HTTPError as error:  # its text might hold the address
            reason = f"it answered {error.code}"
            if error.code < 500:
                break
        except (OSError, ValueError) as error:
            reason = type(getattr(error, "reason", error)).__name__
        if attempt < TRIES - 1:
            time.sleep(PAUSE)
    return f"the webhook at {host} could not be told: {reason}"
