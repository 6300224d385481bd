"""Build sdists and wheels: the same bytes wherever and whenever the same files are built.

    python scripts/build_distributions.py --output dist [FOLDER ...]

Without a folder the core and all plugins. Only files that git knows or would add go in; their
times are those of the last commit (or SOURCE_DATE_EPOCH), their modes 644 or 755. The wheel is
made from the sdist. Every wheel is looked through before it is handed out; see :func:`look_through`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from build import ProjectBuilder
from pyproject_hooks import quiet_subprocess_runner

ROOT = Path(__file__).resolve().parent.parent
LICENCE = ROOT / "LICENSE"

DATA_ENDINGS = (".tsv.gz", ".csv", ".cwl", ".j2", ".css", ".js", ".json", ".yaml", ".tmpl")
"""What a wheel holds beside code."""

NEVER_SHIPPED = frozenset({"tests", "golden", "fixtures", "shared", "runs", "__pycache__"})
"""Folders that no wheel may have anywhere."""

MOST_FILE_BYTES = 2 * 2**20
MOST_WHEEL_BYTES = 5 * 2**20


def files_of(folder: Path) -> list[PurePosixPath]:
    """Return the files of a distribution, relative to its folder, sorted.

    The core is its package and what describes it; a plugin is its folder without the tests.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = sorted({PurePosixPath(name) for name in listed.split("\0") if name})
    core = folder == ROOT
    kept = ("scdrugmap", "pyproject.toml", "README.md", "CITATION.cff", "CHANGELOG.md")
    return [
        path
        for path in paths
        if (path.parts[0] in kept if core else path.parts[0] != "tests")
        and (folder / path).is_file()
    ]


def commit_time() -> int:
    """Return SOURCE_DATE_EPOCH, else the time of the last commit, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    command = ["git", "log", "-1", "--format=%ct"]
    return int(given or subprocess.check_output(command, cwd=ROOT, text=True))


def build(folder: Path, output: Path, when: int) -> Path:
    """Build the sdist and the wheel of a folder into `output`; return the wheel."""
    with tempfile.TemporaryDirectory() as place:
        source, unpacked = Path(place, "source"), Path(place, "unpacked")
        for path in files_of(folder):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, source / path)
            (source / path).chmod(0o755 if os.access(folder / path, os.X_OK) else 0o644)
        shutil.copyfile(LICENCE, source / LICENCE.name)
        builder = ProjectBuilder(source, runner=quiet_subprocess_runner)
        sdist = Path(builder.build("sdist", place))
        normalise(sdist, when)
        shutil.copy(sdist, output)
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked, filter="tar")
        top = next(unpacked.iterdir())
        builder = ProjectBuilder(top, runner=quiet_subprocess_runner)
        return Path(builder.build("wheel", output))


def normalise(sdist: Path, when: int) -> None:
    """Pack a .tar.gz again so that it depends on names, contents and `when` alone."""
    plain = io.BytesIO()
    with (
        tarfile.open(sdist) as before,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for member in sorted(before.getmembers(), key=lambda member: member.name):
            executable = member.isdir() or bool(member.mode & 0o100)
            member.mode = 0o755 if executable else 0o644
            member.mtime, member.uid, member.gid, member.uname, member.gname = when, 0, 0, "", ""
            member.pax_headers = {}
            after.addfile(member, before.extractfile(member) if member.isfile() else None)
    with (
        open(sdist, "wb") as handle,
        gzip.GzipFile(filename="", mode="wb", fileobj=handle, mtime=when) as packed,
    ):
        packed.write(plain.getvalue())


def look_through(wheel: Path, sources: Iterable[PurePosixPath]) -> list[str]:
    """Say what is wrong with the content of a wheel.

    Parameters
    ----------
    wheel : Path
    sources : iterable of PurePosixPath
        :func:`files_of` the folder that it was built from.

    Returns
    -------
    list of str
        One line for each file that must not be there, is missing or too large; empty: all is well.
    """
    found = []
    with zipfile.ZipFile(wheel) as archive:
        sizes = {PurePosixPath(item.filename): item.file_size for item in archive.infolist()}
        licences = [
            archive.read(str(path)) for path in sizes if path.match("*.dist-info/licenses/LICENSE")
        ]
    carried = {path for path in sizes if not path.parts[0].endswith(".dist-info")}
    packages = {path.parts[0] for path in carried}
    meant = {path for path in sources if path.parts[0] in packages and len(path.parts) > 1}
    found += [f"{path} is no file of the package" for path in sorted(carried - meant)]
    found += [f"{path} is missing" for path in sorted(meant - carried)]
    for path, size in sorted(sizes.items()):
        if not NEVER_SHIPPED.isdisjoint(path.parts):
            found.append(f"{path} does not belong into a wheel")
        if size > MOST_FILE_BYTES:
            found.append(f"{path} has {size:,} bytes; at most {MOST_FILE_BYTES:,} are meant")
    for path in sorted(carried):
        if (
            path.suffix != ".py"
            and path.name != "py.typed"
            and not path.name.endswith(DATA_ENDINGS)
        ):
            found.append(f"{path} is neither code nor data of a kind that is meant")
    if not packages or any(not name.startswith("scdrugmap") for name in packages):
        found.append(f"its packages are {', '.join(sorted(packages)) or 'none'}")
    if licences != [LICENCE.read_bytes()]:
        found.append("the licence is not in it")
    if wheel.stat().st_size > MOST_WHEEL_BYTES:
        found.append(
            f"it has {wheel.stat().st_size:,} bytes; at most {MOST_WHEEL_BYTES:,} are meant"
        )
    return found


def main() -> None:
    """Build what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="default: the core and all plugins")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    plugins = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
    when = commit_time()
    os.environ["SOURCE_DATE_EPOCH"] = str(when)
    os.umask(0o022)  # wheels record modes
    given.output.mkdir(parents=True, exist_ok=True)
    for folder in [path.resolve() for path in given.folders] or [ROOT, *plugins]:
        wheel = build(folder, given.output, when)
        if wrong := look_through(wheel, files_of(folder)):
            wheel.unlink()
            sys.exit(f"{wheel.name} is not handed out:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main()
