"""An explainer fitted to a classifier whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest

import dxai
from tests.small_explainer import Colour, draw


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders."""
    return draw(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="session")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dxai.DXAI, Path]:
    """An explainer after 20 steps, and its folder."""
    out = tmp_path_factory.mktemp("fitted") / "explainer"
    return dxai.fit(Colour(), photos, steps=20, out=out), out
