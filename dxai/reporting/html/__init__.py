"""Self-contained HTML pages: explanations with a slider, and the report of a run.

The report's needs are those of the extra `pipeline`; import it from `dxai.reporting.html.page`.
"""

from __future__ import annotations

from dxai.reporting.html.explanation import explanation_page, write_pages
from dxai.reporting.html.viewer import Explanation, Removal

__all__ = ["Explanation", "Removal", "explanation_page", "write_pages"]
