"""The report of a run: what the stages wrote, as one self-contained HTML page."""

from __future__ import annotations

from dxai.reporting.html.page import build_report

__all__ = ["build_report"]
