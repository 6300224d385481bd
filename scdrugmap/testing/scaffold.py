"""Write a new plugin from the shipped template."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.registry import get_registry
from scdrugmap.specs import NAME_PATTERN
from scdrugmap.system_errors import resource_error
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

# file of the template -> where it goes, with the names of the plugin in braces
_FILES = {
    "pyproject.toml.tmpl": "pyproject.toml",
    "README.md.tmpl": "README.md",
    "init.py.tmpl": "{package}/__init__.py",
    "tokenizer.py.tmpl": "{package}/tokenizer.py",
    "model.py.tmpl": "{package}/model.py",
    "weights.py.tmpl": "{package}/weights.py",
    "test.py.tmpl": "tests/test_{name}.py",
}


def new_plugin(name: str, into: Path, *, title: str = "") -> Path:
    """Write a working plugin with one model; the folder appears whole or not at all.

    Parameters
    ----------
    name : str
        Name of the model: small letters, digits, underscores.
    into : Path
        Existing folder; the plugin goes to ``into/name``.
    title : str
        Name as people write it; default: the name, capitalised.

    Returns
    -------
    Path
        The plugin's folder.

    Raises
    ------
    UsageError
        The name cannot be used or is taken, or the folder exists.
    ResourceError
        The folder cannot be written to.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} cannot name a model",
            hint="use small letters, digits and underscores, a letter first: my_model",
        )
    registry = get_registry()
    if name in registry.models or ("model", name) in registry.conflicts:
        raise UsageError(f"a model named {name} is installed already", hint="choose another name")
    target = Path(into) / name
    if target.exists():
        raise UsageError(f"{target} exists", hint="choose another name or another --into")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist", hint="create it first")
    try:
        folder = Path(
            tempfile.mkdtemp(prefix=f".{name}.", suffix=TEMPORARY_SUFFIX, dir=target.parent)
        )
        try:
            _write(folder, name, title)
            os.chmod(folder, 0o755)  # mkdtemp makes folders private
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as err:
        raise (resource_error(err, target) or ResourceError(f"{target}: {err}")) from err
    return target


def _write(folder: Path, name: str, title: str) -> None:
    from scdrugmap import __version__

    words = [word.capitalize() for word in name.split("_") if word]
    names = {
        "name": name,
        "dashed": "-".join(word.lower() for word in words),
        "package": f"scdrugmap_plugin_{name}",
        "class_name": "".join(words),
        "title": _plain(title) or " ".join(words),
        "version": __version__,
    }
    for source, place in _FILES.items():
        text = files("scdrugmap.testing").joinpath("template", source).read_text("utf-8")
        path = folder / place.format(**names)
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template(text).substitute(names), "utf-8", newline="\n")
    (folder / names["package"] / "py.typed").touch()


def _plain(title: str) -> str:
    """Return a title that can stand in a docstring and in TOML."""
    printable = "".join(letter for letter in title if letter.isprintable())
    return " ".join(printable.replace('"', "'").replace("\\", "/").split())
