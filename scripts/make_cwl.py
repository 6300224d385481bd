"""Write the CWL tools, and the workflows of benchmarks, into ``cwl/``.

Run it after a change of the command line or of scdrugmap/run/cwl_tools.py; a test fails until it
was done.
"""

from __future__ import annotations

from pathlib import Path

from scdrugmap.run.cwl_tools import tool_files, workflow_files

FOLDER = Path(__file__).resolve().parent.parent / "cwl"


def files() -> dict[Path, str]:
    """Return what each file should hold."""
    return {
        **{FOLDER / "tools" / name: text for name, text in tool_files()},
        **{FOLDER / "workflows" / name: text for name, text in workflow_files()},
    }


def main() -> None:
    """Write the files that are not current."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()
