"""A plugin that `plugins new` writes installs with pip, passes its tests and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdrugmap import __version__
from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.testing import all_checks
from scdrugmap.testing.scaffold import new_plugin


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_plugin("my_model", tmp_path_factory.mktemp("plugins"), title='My "best" Model')


@pytest.fixture(scope="module")
def installed(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, plugin], check=True
    )
    return target


def test_new_plugin_has_the_files_an_author_edits(plugin: Path) -> None:
    package = "scdrugmap_plugin_my_model"
    files = {path.relative_to(plugin).as_posix() for path in plugin.rglob("*") if path.is_file()}
    modules = ("__init__.py", "tokenizer.py", "model.py", "weights.py", "py.typed")
    assert files == {
        "pyproject.toml",
        "README.md",
        "tests/test_my_model.py",
        *(f"{package}/{name}" for name in modules),
    }


def test_names_of_the_new_plugin_follow_from_the_model(plugin: Path) -> None:
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    assert project["name"] == "scdrugmap-plugin-my-model"
    assert project["description"] == "My 'best' Model for scDrugMap"
    assert f"scdrugmap>={__version__}" in project["dependencies"]
    assert project["entry-points"]["scdrugmap"] == {"my_model": "scdrugmap_plugin_my_model"}
    assert (
        "class MyModel(nn.Module)"
        in (plugin / "scdrugmap_plugin_my_model" / "model.py").read_text()
    )


def test_no_placeholder_is_left(plugin: Path) -> None:
    for path in plugin.rglob("*"):
        assert not path.is_file() or "$" not in path.read_text(), path


@pytest.mark.parametrize("name", ["My_Model", "2cool", "my-model", "", "../x", "a b", "x\n"])
def test_names_that_cannot_name_a_model_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model named randproj is installed already"):
        new_plugin("randproj", tmp_path)


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "xyz").mkdir()
    (tmp_path / "xyz" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="xyz exists"):
        new_plugin("xyz", tmp_path)
    assert (tmp_path / "xyz" / "mine.txt").read_text() == "mine"


def test_a_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        new_plugin("xyz", tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_resource_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="permission denied"):
        new_plugin("xyz", tmp_path)


def test_the_new_plugin_passes_the_linter(plugin: Path) -> None:
    pytest.importorskip("ruff")
    config = Path(__file__).parents[1] / "pyproject.toml"
    command = [sys.executable, "-m", "ruff"]
    ours = 'lint.isort.known-first-party=["scdrugmap", "scdrugmap_plugin_*"]'  # as in plugins/
    for arguments in (["check", "--ignore=D", "--config", ours], ["format", "--check"]):
        done = subprocess.run(
            [*command, *arguments, "--config", config, plugin], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_new_plugin_passes_its_own_tests(plugin: Path, installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=plugin,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(all_checks()) + 1} passed" in done.stdout


@pytest.mark.slow
def test_the_new_model_is_found_and_passes_the_kit(
    installed: Path, run_process: Callable[..., Any]
) -> None:
    path = str(installed)
    shown = run_process("models", "show", "my_model", "--json", PYTHONPATH=path)
    card = json.loads(shown.out)
    assert (card["title"], card["plugin"]) == (
        "My 'best' Model",
        "scdrugmap-plugin-my-model 0.1.0",
    )
    checked = run_process("plugins", "check", "my_model", "--json", PYTHONPATH=path)
    assert {result["status"] for result in json.loads(checked.out)} == {"passed"}
    assert checked.code == 0
