"""`dxai track`: log existing results to MLflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dxai.cli import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    return commands.add_parser("track", help="log the results that are here to MLflow")


def run(options: argparse.Namespace) -> int:
    """Log the results and print the run's id."""
    from dxai.tracking import mlflow_store, provenance

    if problem := provenance.problem(Path.cwd()):
        print(f"warning: the commit is not recorded: {problem}", file=sys.stderr)
    print(f"MLflow run {mlflow_store.track()}")
    return 0
