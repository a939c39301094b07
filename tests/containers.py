"""The files in infra/ for containers (image, compose and Kubernetes) as plain values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "infra/image/Dockerfile"
COMPOSE = ROOT / "infra/compose"
KUBERNETES = ROOT / "infra/kubernetes"

SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH_STRING|(ACCESS|AUTH)_KEY")
"""Matches environment variables with secret values."""
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-?])([^}]*))?\}|(\$)|)")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, with continued lines joined and without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def image_environment() -> dict[str, str]:
    """Return the environment that the image sets."""
    found: dict[str, str] = {}
    for word, rest in instructions(DOCKERFILE.read_text()):
        if word == "ENV":
            found |= dict(pair.split("=", 1) for pair in rest.split())
    return found


def interpolate(value: Any, environment: dict[str, str]) -> Any:
    """Replace the variables in a compose file's values, as `docker compose` does.

    Raises
    ------
    KeyError
        For a missing variable, or a use of `$` that is not supported here.
    """
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, kind, text, dollar = match.groups()
        if dollar:
            return "$"
        if environment.get(name or ""):
            return environment[name]
        if kind == "-":
            return text
        raise KeyError(f"{match[0]} in {value!r}")

    return _VARIABLE.sub(fill, value)


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Read a compose file without replacing its variables."""
    return yaml.safe_load((COMPOSE / name).read_text())


def secret_names() -> list[str]:
    """Return the names in .env.example."""
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Z0-9_]+=", line) for line in lines), "a value in .env.example"
    return [line.rstrip("=") for line in lines]


def kubernetes() -> list[dict[str, Any]]:
    """Read every object that kustomization.yaml lists."""
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    texts = [(KUBERNETES / name).read_text() for name in listed]
    return [item for text in texts for item in yaml.safe_load_all(text) if item]
