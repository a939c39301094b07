"""Explain an image classifier by splitting images into class-agnostic and class-distinct parts.

>>> from dxai import DXAI
>>> explainer = DXAI.load("artifacts/decompositions/textures/resnet18/0")
>>> distinct = explainer.attribute(images, target=labels)
"""

from __future__ import annotations

import os
from typing import Any

# Before torch is imported: threads that spin while they wait slow each other down many times over
# when more of them run than there are cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["DXAI", "__version__"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `dxai --help` does not need it.
    if name == "DXAI":
        from dxai.explain.decomposition import DXAI

        return DXAI
    raise AttributeError(f"module 'dxai' has no attribute {name!r}")
