"""The history in this folder's Prefect server: `python -m infra.history DAYS [--delete]`.

Prints as JSON how many runs ended more than so many days ago, and the age of the oldest; `null` if
no server runs here. With `--delete` they are deleted first, with their logs. `dxai clean` calls it.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dxai.utils.addresses import reach_loopback_directly
from dxai.utils.errors import one_line
from infra import deployments, supervisor
from infra.prefect_api import ApiError
from infra.supervisor import ServiceError, Stack


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    reach_loopback_directly()
    stack, now = Stack(Path.cwd()), datetime.now(UTC)
    before = now - timedelta(days=float(arguments[0]))
    try:
        if supervisor.running(stack, "prefect") is None:
            print("null")
            return 0
        api = deployments.api_of(stack)
        if "--delete" in arguments:
            api.delete_ended_before(before)
        runs, oldest = api.ended_before(before)
    except (ApiError, ServiceError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    days = (now - oldest).total_seconds() / 86400 if oldest else 0
    print(json.dumps({"runs": runs, "oldest_days": days}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
