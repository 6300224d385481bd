"""Write docs/reference/benchmark.schema.json, the JSON schema of a benchmark's YAML file."""

from __future__ import annotations

import json
from pathlib import Path

from scdrugmap.config_schema import config_schema
from scdrugmap.files import write_text

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "benchmark.schema.json"


def text() -> str:
    """Return the content of the file."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(TARGET, text())
