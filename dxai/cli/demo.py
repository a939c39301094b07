"""`dxai demo`: photographs taken apart, on a page in the browser."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dxai.cli import Commands
from dxai.cli.options import add_device


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "demo",
        help="take photographs apart and open the page",
        description="Take photographs in the package apart with an explainer in the package, and "
        "write and open a page with a slider that removes the class-distinct part; beside it "
        "Grad-CAM and Integrated Gradients, if Captum is installed. The page's path is printed "
        "last.",
    )
    parser.add_argument(
        "--out", default="dxai-demo", metavar="DIR", help="folder to write to (%(default)s)"
    )
    parser.add_argument(
        "--no-open",
        action="store_false",
        dest="open",
        help="do not open the page; without a display it is never opened",
    )
    add_device(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the page, and open it where a person can see it."""
    from dxai.library.demo import write_demo

    page = write_demo(options.out, options.device)
    print(page, flush=True)
    if options.open:
        open_page(page)
    return 0


def open_page(page: Path) -> bool:
    """Open a page in the browser; return whether there was one.

    Without a display nothing is tried, unless BROWSER names a program: there the standard library
    would start a browser that takes over the terminal.
    """
    import webbrowser

    displays = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform not in ("darwin", "win32") and not any(map(os.environ.get, displays)):
        return False
    return webbrowser.open(page.resolve().as_uri())
