"""Where the reference data lie, when they lie beside the checkout; tests that need them say so when they skip."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the reference data in ../shared, not beside this checkout"
)
