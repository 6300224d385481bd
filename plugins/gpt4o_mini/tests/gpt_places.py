"""Where the golden data are, and the key that the test server takes."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "Meta-Llama-3-8B"
KEY = "sk-test-8f14e45fceea167a5a36dedd4bea2543"
