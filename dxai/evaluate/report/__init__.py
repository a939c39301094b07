"""The report of a run: what the stages wrote, as one self-contained HTML page."""

from __future__ import annotations

from dxai.evaluate.report.page import build_report
from dxai.evaluate.report.results import Folders

__all__ = ["Folders", "build_report"]
