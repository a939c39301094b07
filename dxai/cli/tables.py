"""`dxai tables`: make some tables from existing results."""

from __future__ import annotations

import argparse
from pathlib import Path

from dxai.cli import Commands
from dxai.paths import HERE


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "tables",
        help="make some tables from the results that are here",
        description="Without the stages that only other tables need; `dvc repro` makes them all.",
    )
    parser.add_argument("numbers", nargs="+", metavar="N", type=int, help="1 to 6, as in the paper")
    parser.add_argument(
        "--into", default=HERE.some_tables, metavar="DIR", help="folder to replace (%(default)s)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the tables and print their paths."""
    from dxai.config.params_file import load_params
    from dxai.config.settings import choose
    from dxai.results.table_specs import NUMBERED
    from dxai.stages.tables import make, write
    from dxai.utils.files import require_folder

    names = [choose("table", f"table{n}", NUMBERED.values()) for n in options.numbers]
    folder = Path(options.into)
    require_folder(folder)
    if folder.is_dir() and any(path.suffix != ".csv" for path in folder.iterdir()):
        raise ValueError(f"{folder}: a folder with other files than tables; name a new one")
    write(folder, make(names, load_params()))
    print("\n".join(str(folder / f"{name}.csv") for name in names))
    return 0
