"""Explain an image classifier by splitting images into class-agnostic and class-distinct parts.

>>> import dxai
>>> explainer = dxai.fit(model, "photos", classes=["apple", "zebra"], size=64, minutes=15)
>>> explainer.explain("photos/zebra/7.jpg").save("zebra.html")
"""

from __future__ import annotations

import os
from typing import Any

# Before torch is imported: threads that spin while they wait slow each other down many times over
# when more of them run than there are cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["DXAI", "Method", "__version__", "evaluate", "fit"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `dxai --help` does not need it.
    if name == "DXAI":
        from dxai.library.explainer import DXAI

        return DXAI
    if name == "Method":
        from dxai.library.method import Method

        return Method
    if name == "evaluate":
        from dxai.library.evaluation import evaluate

        return evaluate
    if name == "fit":
        from dxai.library.fitting import fit

        return fit
    raise AttributeError(f"module 'dxai' has no attribute {name!r}")
