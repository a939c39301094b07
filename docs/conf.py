"""How Sphinx builds the documentation: `make docs`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported
    os.environ[_name] = "1"

import dxai  # noqa: E402
from dxai.library import fitting  # noqa: E402
from dxai.library.budget import Budget  # noqa: E402

project, author = "dxai", "the authors of dxai"
version = release = dxai.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinxarg.ext",
    "docs.diagrams",
]
exclude_patterns = ["_build", "tutorials"]
highlight_language = "text"

myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4
myst_ref_domains = ["std", "py"]  # that of the commands knows no references from Markdown

autodoc_typehints = "none"  # the docstrings name types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# Tutorials run in a copy of their folder, because they write files.
TUTORIALS = HERE / "_build/tutorials"
sphinx_gallery_conf = {
    "examples_dirs": str(TUTORIALS),
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "default_thumb_file": str(HERE / "explained.png"),  # for tutorials without a picture
    "abort_on_example_error": True,
    "image_scrapers": ("docs.gallery_figures.scrape",),
    "capture_repr": ("_repr_html_",),
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
}
STEPS = 70
"""Steps of every `dxai.fit` in a tutorial, whatever the minutes buy on this machine, so that pages
say the same everywhere."""

html_theme = "furo"
html_title = "dxai"
html_copy_source = False
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def prepare_tutorials(app: Sphinx) -> None:
    """Copy the tutorials, and fix the number of steps that their fits take."""
    shutil.rmtree(TUTORIALS, ignore_errors=True)
    shutil.copytree(HERE / "tutorials", TUTORIALS)
    vars(fitting)["Budget"] = lambda minutes, began, _: Budget(minutes, began, STEPS)


def adapt_links(app: Sphinx, page: str, text: list[str]) -> None:
    """Turn links that work in a clone into such that work on the site.

    A tutorial becomes its page. Of a file outside of docs/, which the site does not have, only the
    link's text is left.
    """
    tutorial = re.sub(r"\]\(tutorials/(\w+)\.py\)", r"](gallery/\1.rst)", text[0])
    gallery = tutorial.replace("](tutorials)", "](gallery/index.rst)")
    text[0] = re.sub(r"\[([^]]+)\]\(\.\./[^)\s]+\)", r"\1", gallery)


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("builder-inited", prepare_tutorials, priority=1)  # before the gallery's own
    app.connect("source-read", adapt_links)
