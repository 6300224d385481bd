"""Start-up is fast: nothing heavy is imported before it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from scdrugmap.cli import VERBS
from scdrugmap.testing.contract_checks import HEAVY_MODULES

HEAVY = {*HEAVY_MODULES, "skops", "zarr", "rich", "jinja2", "umap", "safetensors"}
MOST_SECONDS = 0.9  # alone it takes 0.3 s; tests share the machine

SCRIPT = """
import json, sys
from scdrugmap.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "models list",
        "models list --json",
        "models show randproj",
        "plugins list",
        "plugins show baselines",
        "datasets list",
        *(f"{verb} --help" for verb in VERBS),
    ],
)
def test_command_imports_nothing_heavy(command: str) -> None:
    code, loaded = modules(*command.split())
    assert code == 0
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["scdrugmap", "scdrugmap.plugin", "scdrugmap.testing"])
def test_module_imports_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & HEAVY


def test_a_tokenizer_imports_no_torch() -> None:
    code = "import sys; from scdrugmap.modelkit import Tokens, token_keys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_help_comes_well_under_a_second() -> None:
    seconds = []
    for _ in range(3):  # the best of three: the first may compile; of a processor, which others use
        began = os.times()
        subprocess.run(
            [sys.executable, "-m", "scdrugmap", "--help"], capture_output=True, check=True
        )
        ended = os.times()
        user, system = ended.children_user, ended.children_system
        seconds.append(user + system - began.children_user - began.children_system)
    assert min(seconds) < MOST_SECONDS
