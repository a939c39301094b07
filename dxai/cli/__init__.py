"""The `dxai` command: one module a subcommand, each with `add_parser` and `run`.

Modules import heavy packages only in `run`, so that `dxai --help` answers at once.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The parser of `dxai`, to which each subcommand adds its own."""
