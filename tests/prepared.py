"""Real prepared data for tests: small textures."""

from __future__ import annotations

from pathlib import Path

from dxai.config.params_file import load_params
from dxai.datasets.prepare import prepare

PROJECT = Path(__file__).parents[1]


def prepared_textures(root: Path, image_size: int = 16) -> Path:
    """Prepare the textures at `image_size` px, patches side by side, and return their folder."""
    params = load_params(PROJECT / "params.yaml")
    textures = params.datasets["textures"].replace(
        source=str(PROJECT / "data/textures.md"),
        options={"block": 64, "stride": 64, "validation": 0.2, "test": 0.2, "seed": 0},
    )
    small = params.replace(
        datasets={"textures": textures},
        prepare=params.prepare.replace(image_size=image_size),
    )
    prepare("textures", small, root / "textures", root / ".unfinished", workers=1)
    return root / "textures"
