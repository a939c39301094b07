"""`python -m dxai`."""

from __future__ import annotations

import sys

from dxai.cli.main import main

sys.exit(main())
