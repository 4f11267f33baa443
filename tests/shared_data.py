"""Where the public measurements lie; tests that need them skip, with the reason, when they are absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SIMTOOL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no shared measurements at {SHARED}")
