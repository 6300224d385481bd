"""Verify a folder of weights, ask for its licence, and describe it for Galaxy's data table.

Runs with any Python; scdrugmap is called as a program.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

WRONG_USAGE = 2


def ask(*arguments: str) -> Any:
    """Run scdrugmap and return its JSON; its errors are ours, with its exit code."""
    done = subprocess.run(["scdrugmap", *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def fail(message: str, hint: str) -> None:
    """End as scdrugmap ends when it is used wrongly."""
    sys.stderr.write(f"Error: {message}\n       {hint}\n")
    sys.exit(WRONG_USAGE)


def folder_of(text: str) -> Path:
    """Return the folder; a relative one lies in the server's folder of weights."""
    folder = Path(text)
    if folder.is_absolute():
        return folder
    root = os.environ.get("SCDRUGMAP_WEIGHTS")
    if not root:
        fail(
            f"{text} is no absolute path, and SCDRUGMAP_WEIGHTS is not set",
            "give the whole path of the folder",
        )
    return Path(str(root)) / folder


def one_field(text: str) -> str:
    """Return a text without what would end a field of the table."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Return letters and digits only: quotes do not survive Galaxy's forms."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def main() -> None:
    """Write the entry as JSON."""
    parser = argparse.ArgumentParser()
    for name in ("model", "folder", "licence", "user", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("variant", "name"):
        parser.add_argument(f"--{name}", default="")
    given = parser.parse_args()
    variant = ["--variant", given.variant] if given.variant else []
    facts = ask("weights", "show", given.model, *variant)
    licence = one_field(facts["licence"])
    if plain(given.licence) != plain(licence):
        fail(
            f"the licence of these weights is {licence!r}, not {given.licence!r}",
            f"read it ({facts['homepage']}); to accept it for the users of this server, type its name",
        )
    folder = folder_of(given.folder)
    found = ask("weights", "verify", given.model, str(folder), *variant)
    name = one_field(given.name) or f"{facts['model']}: {facts['name']}"
    if facts["commercial_use"] is False:
        name += " (no commercial use)"
    entry = {
        "value": re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{given.model}-{found['digest'][:12]}"),
        "name": name,
        "model": given.model,
        "variant": given.variant,
        "path": str(folder),
        "licence": licence,
        "accepted": one_field(f"{given.user} {date.today().isoformat()}"),
    }
    tables = {"data_tables": {"scdrugmap_weights": [entry]}}
    Path(given.output).write_text(json.dumps(tables, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
