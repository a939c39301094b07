"""The report of a run: its results as one self-contained HTML page."""

from __future__ import annotations

from dxai.reporting.html.page import build_report

__all__ = ["build_report"]
