"""Alerts at the webhook of DXAI_ALERTS, by Prefect's automations: `python -m infra.alerts`.

A late run, a work pool without a worker and a full disk are events, of which no run tells; the
server posts them. What a run that ends has to tell, its tables among it, the run posts itself
(`flows/webhook.py`): an automation's template knows only the run's name and state.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dxai.utils.addresses import reach_loopback_directly
from dxai.utils.errors import one_line
from infra.prefect_api import ApiError, PrefectApi

ADDRESS = "DXAI_ALERTS"
"""Variable with the webhook's address. It is not DXAI_WEBHOOK's, as Prefect keeps this one in its
database, encrypted, and what the webhook answers in its events."""
BLOCK = "dxai-alerts"
DISK_FULL = "dxai.disk.full"
ALERTS = {
    "dxai: late run": (
        "prefect.flow-run.Late",
        "dxai: run {{ flow_run.name }} is late: no worker has started it",
    ),
    "dxai: no worker": (
        "prefect.work-pool.not-ready",
        "dxai: no worker of the work pool {{ work_pool.name }} answers",
    ),
    "dxai: full disk": (DISK_FULL, "dxai: {{ event.payload.text }}"),
}
"""Name of each automation, the event that it waits for, and what it posts."""
FREE = "DXAI_DISK_ALERT"
FREE_GIB = 5.0
"""Variable with the free GiB below which a disk counts as full, and its default."""
logger = logging.getLogger(__name__)


def set_up(api: PrefectApi, address: str) -> None:
    """Create or change the automations, so that they post to an address; "" removes them."""
    wanted = {"automations": {"name": {"any_": list(ALERTS)}}}
    known = {each["name"]: each["id"] for each in api.call("automations/filter", wanted)}
    if not address:
        for automation in known.values():
            api.call(f"automations/{automation}", method="DELETE")
        return
    block = _block(api, address)
    for name, (event, text) in ALERTS.items():
        body = {
            "name": name,
            "trigger": {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1},
            "actions": [
                {
                    "type": "call-webhook",
                    "block_document_id": block,
                    "payload": json.dumps({"text": text}),
                }
            ],
        }
        if name in known:
            api.call(f"automations/{known[name]}", body, "PUT")
        else:
            api.call("automations/", body)


def _block(api: PrefectApi, address: str) -> str:
    """Return the id of the block with the address, which the server keeps encrypted."""
    kind = api.call("block_types/slug/webhook")["id"]
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    schema = api.call("block_schemas/filter", wanted)[0]["id"]
    data = {"method": "POST", "url": address, "headers": {"Content-Type": "application/json"}}
    body = {"block_schema_id": schema, "data": data}
    found = api.call(
        "block_documents/filter",
        {"block_documents": {"name": {"any_": [BLOCK]}}, "include_secrets": False},
    )
    if found:
        api.call(f"block_documents/{found[0]['id']}", body, "PATCH")
        return str(found[0]["id"])
    return str(api.call("block_documents/", {"name": BLOCK, "block_type_id": kind, **body})["id"])


def full_disk(folder: Path) -> str:
    """Return what to say of a folder's disk if it is nearly full, else "".

    Raises `ValueError` if DXAI_DISK_ALERT is no number.
    """
    given = os.environ.get(FREE) or str(FREE_GIB)
    if not re.fullmatch(r"\d+(\.\d*)?", given):
        raise ValueError(f"{FREE} is {given!r}, not a number of GiB")
    free = shutil.disk_usage(folder).free / 2**30
    if free >= float(given):
        return ""
    return (
        f"{free:.1f} GiB are free for {folder} on {socket.gethostname()}; `dxai clean` finds more"
    )


def tell_full_disk(api: PrefectApi, text: str) -> None:
    """Send the event that the automation waits for."""
    host = socket.gethostname()
    event: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": DISK_FULL,
        "resource": {"prefect.resource.id": f"dxai.disk.{host}", "prefect.resource.name": host},
        "payload": {"text": text},
    }
    api.call("events", [event])


def main() -> int:
    """Set up the alerts on the server of the environment; returns the exit code."""
    reach_loopback_directly()
    login = os.environ.get("PREFECT_API_AUTH_STRING", "")
    try:
        set_up(PrefectApi(os.environ["PREFECT_API_URL"], login), os.environ.get(ADDRESS, ""))
    except (ApiError, OSError, KeyError) as error:
        print(f"error: there are no alerts: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
