"""What we ship is what we mean to ship, the same bytes twice, on dependencies that we may use.

Wheels hold the package, its licence and nothing else; building again elsewhere gives the same
sdists and wheels; no runtime dependency is under GPL or AGPL or under a licence that nobody read;
an audit that did not see every version never ends well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import audit_dependencies  # noqa: E402
import build_distributions  # noqa: E402
import check_licences  # noqa: E402

# licences ----------------------------------------------------------------------------------------


def declared(**fields: Any) -> Message:
    """Make the metadata of a distribution."""
    message = Message()
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            message[name.replace("_", "-")] = one
    return message


def test_every_runtime_dependency_has_a_licence_that_goes_with_ours() -> None:
    found = check_licences.findings()
    assert [item for item in found if item.refused] == []
    names = {item.name for item in found}
    assert {"torch", "numpy", "anndata", "h5py", "huggingface-hub", "openai"} <= names
    assert names.isdisjoint({"pytest", "ruff", "mypy", "sphinx", "galaxy-util", "scdrugmap"})


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "GPL-3.0-only"},
        {"License_Expression": "AGPL-3.0-or-later"},
        {"License_Expression": "MIT AND GPL-2.0-or-later"},
        {"License_Expression": "SSPL-1.0"},
        {"License_Expression": "LicenseRef-Proprietary"},
        {"License": "GPLv3"},
        {"License": "GNU General Public License v3"},
        {"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"},
        {"License": "GPL", "Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"},
        {
            "Classifier": [
                "License :: OSI Approved :: MIT License",
                "License :: OSI Approved :: GNU General Public License v2 (GPLv2)",
            ]
        },
        {"License": "UNKNOWN"},
        {"License": "see the file"},
        {"Classifier": "License :: OSI Approved"},
        {"Classifier": "License :: Other/Proprietary License"},
        {},
    ],
    ids=str,
)  # fmt: skip
def test_copyleft_and_unknown_licences_are_refused(fields: dict[str, Any]) -> None:
    assert check_licences.judge("some-package", declared(**fields)).refused


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"License": "Apache 2.0 License"}, "Apache-2.0"),
        ({"Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "ISC"),
        ({"License": "MIT License\n\nCopyright", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
    ],
    ids=str,
)  # fmt: skip
def test_permissive_licences_are_taken(fields: dict[str, Any], licence: str) -> None:
    found = check_licences.judge("some-package", declared(Version="1.2", **fields))
    assert (found.licence, found.version, found.refused, found.reason) == (licence, "1.2", "", "")


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "MPL-2.0 AND MIT"},
        {"License_Expression": "LGPL-2.1-or-later"},
        {"Classifier": "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"},
    ],
    ids=str,
)
def test_weak_copyleft_is_taken_with_a_reason(fields: dict[str, Any]) -> None:
    found = check_licences.judge("some-package", declared(**fields))
    assert not found.refused
    assert found.reason


def test_a_distribution_that_names_its_licence_is_judged_by_that_name() -> None:
    """What we read once by hand does not outlive a change of the licence."""
    assert check_licences.judge("skops", declared(Classifier="License :: OSI Approved")).reason
    assert check_licences.judge("skops", declared(License_Expression="GPL-3.0-only")).refused


# audit -------------------------------------------------------------------------------------------

CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}
UNSEEN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "status", "said"),
    [
        ([CLEAN], 0, "1 versions, none with a known hole"),
        ([CLEAN, BAD], 1, "b 2: CVE-1, CVE-2"),
        ([CLEAN, UNSEEN], audit_dependencies.NOT_RUN, "NOT RUN for 1 of 2: c"),
        ([BAD, UNSEEN], 1, "b 2"),
        ([], audit_dependencies.NOT_RUN, "NOT RUN"),
    ],
)
def test_an_audit_is_clean_only_if_every_version_was_looked_up(
    dependencies: list[dict[str, Any]], status: int, said: str
) -> None:
    found = audit_dependencies.verdict("pypi", {"dependencies": dependencies})
    assert found[0] == status
    assert said in found[1]
    assert found[2]["tried"] == sum("vulns" in item for item in dependencies)


def test_an_audit_that_reaches_no_service_says_that_it_was_not_run() -> None:
    pins = ROOT / "constraints.txt"
    status, said, counts = audit_dependencies.audit(pins, services=["no-such-service"])
    assert (status, counts["tried"]) == (audit_dependencies.NOT_RUN, 0)
    assert said.startswith("NOT RUN")


# wheels ------------------------------------------------------------------------------------------

CONTENT = {
    "scdrugmap_plugin_x/__init__.py": b"",
    "scdrugmap_plugin_x/py.typed": b"",
    "scdrugmap_plugin_x/table.json": b"{}",
}
SOURCES = [PurePosixPath(name) for name in (*CONTENT, "pyproject.toml", "README.md")]


def make_wheel(path: Path, content: dict[str, bytes], *, licence: bool = True) -> Path:
    wheel = path / "scdrugmap_plugin_x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        if licence:
            text = build_distributions.LICENCE.read_bytes()
            archive.writestr("scdrugmap_plugin_x-1.dist-info/licenses/LICENSE", text)
        archive.writestr("scdrugmap_plugin_x-1.dist-info/METADATA", "")
    return wheel


def test_a_wheel_of_the_package_and_its_licence_is_handed_out(tmp_path: Path) -> None:
    assert build_distributions.look_through(make_wheel(tmp_path, CONTENT), SOURCES) == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("tests/test_x.py", b"", "does not belong into a wheel"),
        ("scdrugmap_plugin_x/tests/golden/expected.npz", b"", "does not belong into a wheel"),
        ("scdrugmap_plugin_x/weights.pt", b"x", "neither code nor data of a kind that is meant"),
        ("scdrugmap_plugin_x/big.json", b" " * 2_200_000, "has 2,200,000 bytes"),
        ("scdrugmap_plugin_x/stale.py", b"", "is no file of the package"),
        ("other/__init__.py", b"", "its packages are other, scdrugmap_plugin_x"),
    ],
)
def test_a_wheel_with_a_file_that_is_not_meant_is_not_handed_out(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    wheel = make_wheel(tmp_path, {**CONTENT, name: data})
    sources = SOURCES if "stale" in name else [*SOURCES, PurePosixPath(name)]
    assert any(said in line for line in build_distributions.look_through(wheel, sources))


def test_a_wheel_without_its_data_or_its_licence_is_not_handed_out(tmp_path: Path) -> None:
    less = {name: data for name, data in CONTENT.items() if not name.endswith(".json")}
    found = build_distributions.look_through(make_wheel(tmp_path, less, licence=False), SOURCES)
    assert found == ["scdrugmap_plugin_x/table.json is missing", "the licence is not in it"]


def copy_sources(target: Path) -> None:
    """Copy the core, one plugin and what builds them into a repository of its own."""
    for folder in (ROOT, ROOT / "plugins" / "scgpt"):
        for path in build_distributions.files_of(folder):
            place = target / folder.relative_to(ROOT) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, place)
    (target / "scripts").mkdir()
    shutil.copy(build_distributions.__file__, target / "scripts")
    shutil.copy(build_distributions.LICENCE, target)
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """Build one state of the sources twice: elsewhere, later, with other modes, seed and zone."""
    first = tmp_path_factory.mktemp("first") / "project"
    second = tmp_path_factory.mktemp("second") / "a" / "deeper" / "place"
    copy_sources(first)
    shutil.copytree(first, second, copy_function=shutil.copyfile)
    for path in second.rglob("*.py"):
        path.chmod(0o600)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    made = []
    for place, umask, seed, zone in (
        (first, 0o022, "1", "UTC"),
        (second, 0o077, "2", "Asia/Tokyo"),
    ):
        subprocess.run(
            [
                *(sys.executable, str(place / "scripts" / "build_distributions.py")),
                *(str(place), str(place / "plugins" / "scgpt"), "--output", str(place / "out")),
            ],
            check=True,
            umask=umask,
            env={**environment, "PYTHONHASHSEED": seed, "TZ": zone},
        )
        made.append({path.name: path.read_bytes() for path in (place / "out").iterdir()})
    return made.__getitem__


@pytest.mark.slow
def test_building_again_elsewhere_gives_the_same_bytes(
    built: Callable[[int], dict[str, bytes]],
) -> None:
    assert sorted(built(0)) == [
        "scdrugmap-0.1.0-py3-none-any.whl",
        "scdrugmap-0.1.0.tar.gz",
        "scdrugmap_plugin_scgpt-0.1.0-py3-none-any.whl",
        "scdrugmap_plugin_scgpt-0.1.0.tar.gz",
    ]
    assert [name for name, data in built(0).items() if data != built(1)[name]] == []


@pytest.mark.slow
def test_nothing_but_the_package_is_in_our_wheels_and_sdists(
    built: Callable[[int], dict[str, bytes]], tmp_path: Path
) -> None:
    for name, data in built(0).items():
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "scdrugmap-0.1.0-py3-none-any.whl") as archive:
        names = set(archive.namelist())
    assert {"scdrugmap/data/genes.tsv.gz", "scdrugmap/report/report.html.j2"} <= names
    assert {name.split("/")[0] for name in names} == {"scdrugmap", "scdrugmap-0.1.0.dist-info"}
    for sdist in tmp_path.glob("*.tar.gz"):
        shutil.unpack_archive(sdist, tmp_path, filter="data")
        folder = tmp_path / sdist.name.removesuffix(".tar.gz")
        assert (folder / "LICENSE").is_file()
        assert not (folder / "tests").exists()
