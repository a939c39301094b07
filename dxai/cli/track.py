"""`dxai track`: log existing results to MLflow."""

from __future__ import annotations

import argparse

from dxai.cli import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    return commands.add_parser("track", help="log the results that are here to MLflow")


def run(options: argparse.Namespace) -> int:
    """Log the results and print the run's id."""
    from dxai.tracking import mlflow_store

    print(f"MLflow run {mlflow_store.track()}")
    return 0
