"""Write the bill of materials (CycloneDX) of the core: what its wheel brings into an empty Python.

    python scripts/make_sbom.py --tools .venv-supply-chain/bin/python --wheel dist/scdrugmap-....whl

Installs the wheel with the pinned versions into a new environment that holds nothing else, not even
pip, and writes ``scdrugmap-VERSION.cdx.json`` beside the wheel, checked against the schema.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def install(wheel: Path, place: Path) -> Path:
    """Make an environment with the wheel and what it needs; return its interpreter."""
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pip += ["--python", str(python), "install", "--constraint", str(ROOT / "constraints.txt")]
    for wanted in ("torch", str(wheel)):  # torch first, so that no other build of it is pulled in
        subprocess.run([*pip, wanted], check=True)
    return python


def main() -> None:
    """Write the bill of one wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="Python that has cyclonedx-bom")
    parser.add_argument("--wheel", type=Path, required=True)
    given = parser.parse_args()
    name, version = given.wheel.name.split("-")[:2]
    target = given.wheel.parent / f"{name}-{version}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        python = install(given.wheel, Path(folder, "venv"))
        subprocess.run(
            [
                *(str(given.tools), "-m", "cyclonedx_py", "environment", "--validate"),
                *("--output-reproducible", "--pyproject", str(ROOT / "pyproject.toml")),
                *("--output-format", "JSON", "--output-file", str(target), str(python)),
            ],
            check=True,
        )
    bill = json.loads(target.read_text("utf-8"))
    listed = {item["name"] for item in bill["components"]}
    if not {"torch", "numpy", "anndata"} <= listed:
        sys.exit(f"{target}: torch, numpy or anndata is missing: the environment was not read")
    print(f"{target}: {len(listed)} components, {bill['specVersion']}")


if __name__ == "__main__":
    main()
