"""No module runs what it reads: forbidden calls are found in the syntax tree, under any name.

Tried: every Python file of the package, the plugins and the scripts. Must hold: none unpickles,
evaluates, loads objects or starts a shell, but for the exceptions below, each with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("scdrugmap", "plugins", "scripts")

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("scdrugmap/safe_pickle.py", "pickle"): (
        "its unpickler looks names up in a table of stand-ins, after the pickle was looked through"
    ),
    ("plugins/geneformer/tests/test_weights.py", "pickle"): (
        "reads dictionaries that lie beside the test, to write changed ones"
    ),
    ("plugins/geneformer/tests/test_weights.py", "shell"): (
        "a payload names it, to see that it is not run"
    ),
    ("plugins/llama3/tests/test_tokenizer.py", "pickle"): (
        "an object of the test goes through a pickle, as it does between processes"
    ),
}

# What is forbidden to be named at all, called or not, by its full name.
NAMES = {
    "pickle.load": "pickle",
    "pickle.loads": "pickle",
    "pickle.Unpickler": "pickle",
    "pickle._Unpickler": "pickle",
    "pickle._loads": "pickle",
    "pandas.read_pickle": "pickle",
    "shelve.open": "pickle",
    "eval": "eval",
    "exec": "eval",
    "compile": "eval",
    "__import__": "eval",
    "builtins.eval": "eval",
    "builtins.exec": "eval",
    "os.system": "shell",
    "os.popen": "shell",
    "subprocess.getoutput": "shell",
    "subprocess.getstatusoutput": "shell",
    "yaml.unsafe_load": "yaml",
    "yaml.full_load": "yaml",
    "yaml.Loader": "yaml",
    "yaml.UnsafeLoader": "yaml",
    "yaml.FullLoader": "yaml",
    "torch.hub.load": "torch",
    "torch.jit.load": "torch",
    "joblib.load": "pickle",
    "tempfile.mktemp": "temporary name",
}
# Packages of which nothing may be used.
PACKAGES = {
    "marshal": "pickle",
    "dill": "pickle",
    "cloudpickle": "pickle",
    "_pickle": "pickle",
    "cPickle": "pickle",
}
# Arguments, and the only value that each may have.
ARGUMENTS = {
    "weights_only": ("torch", True),
    "allow_pickle": ("pickle", False),
    "shell": ("shell", False),
    "trust_remote_code": ("eval", False),
    "autoescape": ("markup", True),
}
SAFE_YAML = ("yaml.SafeLoader", "yaml.CSafeLoader")


class Finder(ast.NodeVisitor):
    """Finds what is forbidden in one file."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self.names: dict[str, str] = {"np": "numpy", "pd": "pandas"}

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.names[alias.asname or top] = alias.name if alias.asname else top
            self._package(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self.names[alias.asname or alias.name] = full
            self._name(node, full)
        self._package(node, node.module or "")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._name(node, self.names.get(node.id, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._name(node, self.full(node))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.full(node.func)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        for argument, (rule, only) in ARGUMENTS.items():
            if argument in given and not _is(given[argument], only):
                self.found.append((node.lineno, rule))
        if name == "torch.load" and not _is(given.get("weights_only"), True):
            self.found.append((node.lineno, "torch"))
        if name == "numpy.load" and len(node.args) > 2:
            self.found.append((node.lineno, "pickle"))
        if name in ("yaml.load", "yaml.load_all"):
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or self.full(loader) not in SAFE_YAML:
                self.found.append((node.lineno, "yaml"))
        if name.endswith("YAML") and "typ" in given and not _is(given["typ"], "safe", "rt"):
            self.found.append((node.lineno, "yaml"))
        unpacks = isinstance(node.func, ast.Attribute) and node.func.attr == "extractall"
        if unpacks and not _is(given.get("filter"), "data", "tar"):
            self.found.append((node.lineno, "unpacking"))
        self.generic_visit(node)

    def full(self, node: ast.AST) -> str:
        """Return the full name of an expression, with what imports made of it; empty if none."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            start = self.full(node.value)
            return f"{start}.{node.attr}" if start else ""
        return ""

    def _name(self, node: ast.stmt | ast.expr, full: str) -> None:
        if full in NAMES:
            self.found.append((node.lineno, NAMES[full]))

    def _package(self, node: ast.stmt, module: str) -> None:
        top = module.partition(".")[0]
        if top in PACKAGES:
            self.found.append((node.lineno, PACKAGES[top]))


def _is(node: ast.expr | None, *values: object) -> bool:
    return isinstance(node, ast.Constant) and node.value in values


def findings(source: str) -> list[tuple[int, str]]:
    finder = Finder()
    finder.visit(ast.parse(source))
    return sorted(set(finder.found))


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"build", ".venv"} & set(path.parts):
                yield path


SAMPLES = {
    "import pickle\npickle.load(f)": "pickle",
    "import pickle as p\np.loads(b)": "pickle",
    "from pickle import loads as read\nread(b)": "pickle",
    "import pickle\nread = pickle.loads": "pickle",
    "import pickle\nclass Mine(pickle.Unpickler): ...": "pickle",
    "import torch\ntorch.load(f)": "torch",
    "import torch\ntorch.load(f, weights_only=False)": "torch",
    "import torch\ntorch.load(f, weights_only=trusted)": "torch",
    "from torch import load\nload(f)": "torch",
    "model.load_checkpoint(f, weights_only=False)": "torch",
    "import numpy as np\nnp.load(f, allow_pickle=True)": "pickle",
    "import numpy as np\nnp.load(f, None, True)": "pickle",
    "import pandas as pd\npd.read_pickle(f)": "pickle",
    "import joblib\njoblib.load(f)": "pickle",
    "import marshal": "pickle",
    "from dill import loads": "pickle",
    "import shelve\nshelve.open(f)": "pickle",
    "eval(text)": "eval",
    "exec(text)": "eval",
    "run = eval": "eval",
    "__import__(name)": "eval",
    "import builtins\nbuiltins.exec(text)": "eval",
    "f(trust_remote_code=True)": "eval",
    "import yaml\nyaml.load(text)": "yaml",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)": "yaml",
    "import yaml\nyaml.load(text, yaml.FullLoader)": "yaml",
    "from yaml import unsafe_load": "yaml",
    "from ruamel.yaml import YAML\nYAML(typ='unsafe')": "yaml",
    "import subprocess\nsubprocess.run(text, shell=True)": "shell",
    "import subprocess\nsubprocess.run(text, shell=wanted)": "shell",
    "import os\nos.system(text)": "shell",
    "from os import popen": "shell",
    "import tarfile\ntarfile.open(f).extractall(p)": "unpacking",
    "import jinja2\njinja2.Environment(autoescape=False)": "markup",
}

HARMLESS = [
    "import torch\ntorch.load(f, weights_only=True)",
    "import numpy as np\nnp.load(f, allow_pickle=False)\nnp.load(f)",
    "import pickle\ntry: ...\nexcept pickle.UnpicklingError: ...\npickle.dumps(x)",
    "model.eval()\nself.exec(x)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)\nyaml.safe_load(text)",
    "from ruamel.yaml import YAML\nYAML(typ='safe')",
    "import subprocess\nsubprocess.run([a], shell=False)",
    "import re\nre.compile(text)",
    "import json\njson.load(f)",
]


@pytest.mark.parametrize("source", SAMPLES)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert {rule for _, rule in findings(source)} == {SAMPLES[source]}


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_harmless_is_not(source: str) -> None:
    assert findings(source) == []


def test_nothing_forbidden_is_used_but_for_the_exceptions() -> None:
    found: dict[tuple[str, str], list[int]] = {}
    paths = list(files())
    assert len(paths) > 300
    for path in paths:
        for line, rule in findings(path.read_text("utf-8")):
            found.setdefault((path.relative_to(ROOT).as_posix(), rule), []).append(line)
    new = {place: lines for place, lines in found.items() if place not in EXCEPTIONS}
    assert not new, "use what scdrugmap.modelkit and scdrugmap.safe_pickle offer"
    gone = [place for place in EXCEPTIONS if place not in found]
    assert not gone, "exceptions that are no longer needed: remove them here"
    assert all(EXCEPTIONS.values()), "every exception has a reason"
