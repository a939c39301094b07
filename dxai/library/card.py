"""The model card of a shared explainer: a page in Markdown with its picture and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dxai.config.settings import choose
from dxai.paths import METRICS
from dxai.utils.files import read_json

CARD, PICTURE = "README.md", "explained.png"
FIT = "fit.json"
"""Numbers beside a model of `dxai fit`; the pipeline's are METRICS."""
FIELDS = ("image", "data", "license")
"""What a person says: an image to show, what the explainer was fitted on, and the licence."""
TEMPLATE = "model_card.md.jinja"


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise ValueError for a field that the card does not have."""
    for name in fields:
        choose("model_card_kwargs", name, FIELDS)


def model_card(
    info: Mapping[str, Any],
    classifier: Mapping[str, Any],
    folder: Path,
    source: str,
    fields: Mapping[str, Any],
) -> str:
    """Return the card.

    Parameters
    ----------
    info, classifier
        Metadata of the decomposition and of its classifier.
    folder : path
        Of the shared files: the card shows the numbers and the picture that are there.
    source : str
        What `from_pretrained` is to be given.
    fields : dict
        Any of `FIELDS`.
    """
    arch, size = classifier["arch"], info["image_size"]
    gray = "gray" if info["channels"] == 1 else "RGB"
    about = {
        "network": f"`{arch}`",
        "classes": ", ".join(f"`{name}`" for name in info["class_names"]),
        "images": f"{gray}, taken apart at {size} x {size} pixels; any size is taken",
    }
    try:
        verdict, numbers = _worth(folder)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # of a downloaded file
        raise ValueError(f"{folder}: its {FIT} or {METRICS} is damaged: {error}") from None
    licence = fields.get("license")
    metadata = {
        "library_name": "dxai",
        **({"license": licence} if licence else {}),
        "tags": ["dxai", "explainability", "image-decomposition"],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        title=f"What the classifier sees: {', '.join(info['class_names'][:5])}"
        + (" .." if len(info["class_names"]) > 5 else ""),
        picture=PICTURE if (folder / PICTURE).is_file() else "",
        source=source,
        code=arch if ":" in arch else "",
        classifier=about,
        verdict=verdict,
        numbers=numbers,
        data=fields.get("data") or f"{_fitted_on(info)} Its makers say no more.",
        license=licence or "Its makers name none: ask them before you use it.",
    )


def _fitted_on(info: Mapping[str, Any]) -> str:
    name = info.get("dataset", "images")
    if name == "images":  # what `dxai fit` writes
        return "Fitted on images that are not part of these files."
    return f"Fitted on the dataset `{name}`, profile `{info.get('profile', '')}`."


def _worth(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the verdict in words and the numbers that lie beside a model."""
    verdict: list[str] = []
    numbers: dict[str, Any] = {}
    if (folder / FIT).is_file():
        found = read_json(folder / FIT)
        advice = [f"to change: {line}" for line in found["to_change"]]
        verdict = [*found["lines"], *(advice or ["nothing is known to be wrong"])]
        numbers = {name: found[name] for name in ("steps", "minutes")} | found["verdict"]
    elif (folder / METRICS).is_file():
        numbers = read_json(folder / METRICS)
    return verdict, {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in numbers.items()
        if isinstance(value, int | float)
    }
