"""Plugins are real distributions, built and installed by pip, discovered in a child process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.errors import PluginError
from scdrugmap.registry import HOOKS, Registry, discover, get_registry

pytestmark = pytest.mark.slow  # pip builds and installs some twenty distributions

Listing = dict[str, dict[str, Any]]

MODEL = """
from scdrugmap.plugin import CONTRACT, Capability, ModelOptions, ModelSpec, Variant, hookimpl

def model(name, contract=CONTRACT, **more):
    return ModelSpec(
        name=name, title=name, contract=contract, numerics=1, gene_id="symbol",
        species=("human",), accepts={"counts"}, capabilities={Capability.EMBED},
        options=ModelOptions, variants=(Variant(name="tiny", sizes={}),), citation="",
        code_licence="MIT", homepage="", factory="toy:build", **more,
    )
"""

# distribution: what its module holds
TOYS = {
    "good": MODEL
    + """
from scdrugmap.plugin import CommandSpec, DatasetSpec, EstimatorSpec, TextModelSpec

@hookimpl
def scdrugmap_models():
    return [
        model("good"),
        TextModelSpec(
            name="talker", title="Talker", contract=CONTRACT, numerics=1, remote=True,
            secrets=("TALKER_KEY",), options=ModelOptions, citation="", code_licence="MIT",
            homepage="", factory="toy:build",
        ),
    ]

@hookimpl
def scdrugmap_estimators():
    return [EstimatorSpec(name="guess", title="Guess", contract=1, numerics=1, factory="toy:fit")]

@hookimpl
def scdrugmap_datasets():
    return [DatasetSpec(name="cohort", path="cohort.h5ad")]

@hookimpl
def scdrugmap_commands():
    return [
        CommandSpec(name="greet", help="Say hello.", factory="toy_good_command:command"),
        CommandSpec(name="lost", help="Is nowhere.", factory="toy_good:no_such_command"),
    ]
""",
    "import-error": "import a_package_that_nobody_has\n",
    "exits": "import sys\nsys.exit('bye')\n",
    "misspelt": MODEL + "@hookimpl\ndef scdrugmap_model():\n    return [model('misspelt')]\n",
    "raising": MODEL
    + """
@hookimpl
def scdrugmap_models():
    raise RuntimeError("the\\nserver is down")

@hookimpl
def scdrugmap_datasets():
    from scdrugmap.plugin import DatasetSpec
    return [DatasetSpec(name="survivor")]
""",
    "wrong-type": MODEL
    + """
@hookimpl
def scdrugmap_models():
    return ["scgpt", model("right_type")]
""",
    "none": MODEL + "@hookimpl\ndef scdrugmap_models():\n    pass\n",
    "wrong-arguments": MODEL + "@hookimpl\ndef scdrugmap_models(config):\n    return []\n",
    "invalid": MODEL + "@hookimpl\ndef scdrugmap_models():\n    return [model('Not A Name')]\n",
    "clash-a": MODEL
    + "@hookimpl\ndef scdrugmap_models():\n    return [model('clash'), model('only_a')]\n",
    "clash-b": MODEL + "@hookimpl\ndef scdrugmap_models():\n    return [model('clash')]\n",
    "clash-core": MODEL
    + "@hookimpl\ndef scdrugmap_models():\n    return [model('randproj'), model('only_core')]\n",
    "clash-verb": """
from scdrugmap.plugin import CommandSpec, hookimpl

@hookimpl
def scdrugmap_commands():
    return [CommandSpec(name="embed", help="Mine.", factory="toy:command")]
""",
    "twice": MODEL
    + "@hookimpl\ndef scdrugmap_models():\n    return [model('twice'), model('twice')]\n",
    "too-new": MODEL
    + """
@hookimpl
def scdrugmap_models():
    return [model("too_new", contract=2), model("still_good")]
""",
    "too-old": MODEL
    + "@hookimpl\ndef scdrugmap_models():\n    return [model('too_old', contract=0)]\n",
    "newer-fields": MODEL + "SPEC = model('newer_fields', contract=2, holograms=True)\n",
    "newer-field": MODEL + "SPEC = model('newer_field', holograms=True)\n",
    "no-hook": "VALUE = 1\n",
}
COMMAND = """
import click

@click.command()
def command():
    click.echo("hello")
"""


def install(sources: dict[str, str], build: Path, target: Path, version: str = "1.0") -> Path:
    """Build one distribution per module and install them all with pip."""
    projects = []
    for name, text in sources.items():
        module = f"toy_{name.replace('-', '_')}"
        project = build / name
        project.mkdir(parents=True)
        modules = [module]
        (project / f"{module}.py").write_text(text)
        if name == "good":
            modules.append(f"{module}_command")
            (project / f"{module}_command.py").write_text(COMMAND)
        (project / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools"]\n'
            'build-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "toy-{name}"\nversion = "{version}"\n'
            f'[project.entry-points.scdrugmap]\n{name.replace("-", "_")} = "{module}"\n'
            f"[tool.setuptools]\npy-modules = {modules}\n"
        )
        projects.append(project)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, *projects],
        check=True,
    )
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    return install(TOYS, folder / "build", folder / "site")


@pytest.fixture
def plugins(run_process: Callable[..., Any]) -> Callable[..., Listing]:
    def listing(*folders: Path, **environment: str) -> Listing:
        path = ":".join(map(str, folders))
        done = run_process("plugins", "list", "--json", PYTHONPATH=path, **environment)
        assert done.code == 0, done.err
        assert done.err == ""
        return {record["name"]: record for record in json.loads(done.out)}

    return listing


@pytest.fixture(scope="module")
def all_plugins(site: Path) -> Listing:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "scdrugmap", "plugins", "list", "--json"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return {record["name"]: record for record in json.loads(done.stdout)}


def test_a_good_plugin_is_listed_with_all_that_it_provides(all_plugins: Listing) -> None:
    assert all_plugins["good"] == {
        "name": "good",
        "module": "toy_good",
        "distribution": "toy-good",
        "version": "1.0",
        "status": "ok",
        "reasons": [],
        "hooks": list(HOOKS),
        "provides": [
            "model:good",
            "model:talker",
            "estimator:guess",
            "dataset:cohort",
            "command:greet",
            "command:lost",
        ],
        "contracts": [1],
    }


FAILURES = [
    ("import_error", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
    ("exits", "SystemExit: bye"),
    ("misspelt", "unknown hook 'scdrugmap_model' in plugin"),
    ("raising", "scdrugmap_models failed: RuntimeError: the server is down"),
    ("wrong_type", "scdrugmap_models returned a str, not a ModelSpec or TextModelSpec"),
    ("none", "scdrugmap_models returned None, not a list"),
    ("wrong_arguments", "hook 'scdrugmap_models'"),
    ("invalid", "scdrugmap_models failed: ModelSpec.name: String should match pattern"),
    ("clash_a", "model clash is offered by toy-clash-a 1.0 and toy-clash-b 1.0; none of them is"),
    ("clash_b", "model clash is offered by toy-clash-a 1.0 and toy-clash-b 1.0; none of them is"),
    ("clash_core", " and toy-clash-core 1.0; the built-in one is used"),
    ("clash_verb", "command embed is a verb of scdrugmap itself"),
    ("twice", "scdrugmap_models returned model twice twice; the first is used"),
    (
        "too_new",
        "too_new is written for contract 2; this scdrugmap speaks 1: update scdrugmap",
    ),
    ("too_old", "too_old is written for contract 0; this scdrugmap speaks 1: update the plugin"),
    (
        "newer_fields",
        "newer_fields is written for contract 2; this scdrugmap speaks 1: update scdrugmap",
    ),
    ("newer_field", "ModelSpec.holograms: Extra inputs are not permitted"),
    ("no_hook", "implements no hook of scdrugmap"),
]


@pytest.mark.parametrize(("name", "reason"), FAILURES)
def test_a_broken_plugin_is_listed_with_its_reason(
    all_plugins: Listing, name: str, reason: str
) -> None:
    record = all_plugins[name]
    assert record["status"] == "failed"
    assert record["distribution"] == f"toy-{name.replace('_', '-')}"
    (said,) = record["reasons"]
    assert reason in said
    assert "\n" not in said


def test_every_toy_is_listed_once(all_plugins: Listing) -> None:
    assert {name.replace("-", "_") for name in TOYS} <= set(all_plugins)
    ok = {name for name, record in all_plugins.items() if record["status"] == "ok"}
    assert {name.replace("-", "_") for name in TOYS} & ok == {"good"}


def test_the_built_in_plugin_is_listed_first_and_the_others_by_distribution(
    all_plugins: Listing,
) -> None:
    first, *others = [record["distribution"] for record in all_plugins.values()]
    assert first == "scdrugmap"
    assert others == sorted(others)


def test_what_is_sound_of_a_broken_plugin_still_works(all_plugins: Listing) -> None:
    assert all_plugins["raising"]["provides"] == ["dataset:survivor"]
    assert all_plugins["wrong_type"]["provides"] == ["model:right_type"]
    assert all_plugins["clash_a"]["provides"] == ["model:only_a"]
    assert all_plugins["clash_core"]["provides"] == ["model:only_core"]
    assert all_plugins["twice"]["provides"] == ["model:twice"]
    assert all_plugins["too_new"]["provides"] == ["model:still_good"]
    assert all_plugins["too_new"]["contracts"] == [1, 2]


def test_broken_plugins_hurt_no_other(all_plugins: Listing) -> None:
    assert all_plugins["baselines"]["status"] == "ok"
    assert all_plugins["baselines"]["reasons"] == []
    assert "model:randproj" in all_plugins["baselines"]["provides"]


def test_a_clashing_name_is_refused_where_it_is_used(
    site: Path, run_process: Callable[..., Any]
) -> None:
    done = run_process("models", "show", "clash", PYTHONPATH=str(site))
    assert done.code == 4
    assert "model clash is offered by toy-clash-a 1.0 and toy-clash-b 1.0" in done.err
    assert "uninstall one, or choose plugins with SCDRUGMAP_PLUGINS=a,b" in done.err


def test_an_unknown_model_names_the_nearest_and_the_broken_plugins(
    site: Path, run_process: Callable[..., Any]
) -> None:
    done = run_process("models", "show", "misspelt", PYTHONPATH=str(site))
    assert done.code == 4
    assert "there is no model named 'misspelt'" in done.err
    assert "broken plugins: clash_a" in done.err
    assert "scdrugmap plugins list" in done.err


def test_a_filter_loads_the_named_plugins_and_the_built_in_ones(
    site: Path, plugins: Callable[..., Listing]
) -> None:
    listed = plugins(site, SCDRUGMAP_PLUGINS="good, clash_a")
    ok = {name for name, record in listed.items() if record["status"] == "ok"}
    assert ok == {"baselines", "good", "clash_a"}
    assert listed["clash_a"]["provides"] == ["model:clash", "model:only_a"]
    assert listed["exits"]["status"] == "disabled"
    assert listed["exits"]["reasons"] == ["not named in SCDRUGMAP_PLUGINS"]


def test_an_empty_filter_loads_the_built_in_plugins_only(
    site: Path, plugins: Callable[..., Listing]
) -> None:
    listed = plugins(site, SCDRUGMAP_PLUGINS="")
    assert {name for name, record in listed.items() if record["status"] == "ok"} == {"baselines"}
    assert {record["status"] for record in listed.values()} == {"ok", "disabled"}


def test_a_filter_that_names_no_plugin_says_so(site: Path, plugins: Callable[..., Listing]) -> None:
    record = plugins(site, SCDRUGMAP_PLUGINS="good,goood")["goood"]
    assert record["status"] == "failed"
    assert record["reasons"] == ["named in SCDRUGMAP_PLUGINS, but no such plugin is installed"]


def test_a_distribution_that_stands_twice_on_the_path_is_loaded_once(
    site: Path, tmp_path: Path, plugins: Callable[..., Listing]
) -> None:
    older = install({"good": TOYS["good"]}, tmp_path / "build", tmp_path / "site", version="0.9")
    listed = plugins(site, older, SCDRUGMAP_PLUGINS="good")
    assert (listed["good"]["version"], listed["good"]["status"]) == ("1.0", "ok")
    listed = plugins(older, site, SCDRUGMAP_PLUGINS="good")
    assert (listed["good"]["version"], listed["good"]["status"]) == ("0.9", "ok")


def test_a_distribution_without_metadata_is_listed_as_unknown(
    tmp_path: Path, plugins: Callable[..., Listing]
) -> None:
    folder = tmp_path / "toy_bare-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[scdrugmap]\nbare = toy_bare\n")
    record = plugins(tmp_path)["bare"]
    assert (record["distribution"], record["status"]) == ("unknown", "failed")
    assert "No module named 'toy_bare'" in record["reasons"][0]


def test_scdrugmap_models(site: Path, run_process: Callable[..., Any]) -> None:
    done = run_process("models", "list", "--json", PYTHONPATH=str(site))
    cards = {card["name"]: card for card in json.loads(done.out)}
    assert cards["good"]["plugin"] == "toy-good 1.0"
    assert cards["talker"]["kind"] == "text"
    assert "clash" not in cards


def test_scdrugmap_commands(site: Path, run_process: Callable[..., Any]) -> None:
    assert "greet       Say hello." in run_process("--help", PYTHONPATH=str(site)).out
    assert run_process("greet", PYTHONPATH=str(site)).out == "hello\n"


def test_a_command_that_cannot_be_loaded_is_one_line(
    site: Path, run_process: Callable[..., Any]
) -> None:
    done = run_process("lost", PYTHONPATH=str(site))
    assert done.code == 4
    assert "Error: toy_good:no_such_command cannot be loaded: AttributeError" in done.err
    assert "Traceback" not in done.err


@pytest.fixture
def registry(site: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(site)
    return discover(metadata.entry_points(group="scdrugmap"), "good")


def test_scdrugmap_estimators(registry: Registry) -> None:
    assert registry.estimators["guess"].title == "Guess"
    assert registry.estimator("guess") is registry.estimators["guess"]
    assert registry.provided("estimator", "guess").plugin.distribution == "toy-good"


def test_scdrugmap_datasets(registry: Registry) -> None:
    assert registry.datasets["cohort"].path == "cohort.h5ad"


def test_a_text_model_is_no_embedding_model(registry: Registry) -> None:
    with pytest.raises(PluginError, match="talker is a text model"):
        registry.model("talker")
    assert registry.model("good").name == "good"


def test_plugins_are_discovered_once_per_process() -> None:
    assert get_registry() is get_registry()


def test_an_unknown_plugin_names_the_nearest(registry: Registry) -> None:
    with pytest.raises(PluginError, match="no plugin named 'baseline'") as caught:
        registry.plugin("baseline")
    assert caught.value.hint.startswith("did you mean baselines? installed: baselines")
