"""What a benchmark runs: one frozen record, from a YAML file or from command-line flags.

The resolved record is written beside the results, and reading it back gives the same run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scdrugmap.config_errors import YAML_DAMAGE, explain, plain
from scdrugmap.config_records import BenchmarkConfig, DataFile, default_models
from scdrugmap.config_values import CONTROLS, FACET_COLUMNS, PAPER, Family, Head, text_of
from scdrugmap.errors import UsageError
from scdrugmap.files import write_text

__all__ = [
    "CONTROLS",
    "FACET_COLUMNS",
    "PAPER",
    "BenchmarkConfig",
    "DataFile",
    "Family",
    "Head",
    "default_models",
    "make_config",
    "read_config",
    "text_of",
    "write_config",
]

MOST_BYTES = 1_000_000


def read_config(path: Path) -> BenchmarkConfig:
    """Read a benchmark from YAML.

    Raises
    ------
    UsageError
        No such file, no YAML, an unknown key, or a value that cannot be; names file, line, key,
        value and remedy.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist", hint="name a YAML file, or give --data FILE")
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path} is no configuration: it has {path.stat().st_size:,} bytes")
    try:
        raw = YAML(typ="rt").load(path.read_text("utf-8"))
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is no text: {err}", hint="name a YAML file") from err
    except MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(err.problem or err.context or err).split())
        raise UsageError(f"{path}{line} is no YAML: {problem}") from err
    except (YAMLError, *YAML_DAMAGE) as err:
        raise UsageError(f"{path} is no YAML: {' '.join(str(err).split())}") from err
    if not isinstance(raw, Mapping):
        raise UsageError(
            f"{path} holds no keys", hint="it needs at least `data` and `label`; see the tutorial"
        )
    try:
        values = plain(raw, [0])
    except RecursionError as err:
        raise UsageError(f"{path} holds a value that holds itself, or is nested too deep") from err
    return _validated(values, folder=path.parent, raw=raw, where=str(path))


def make_config(values: Mapping[str, Any]) -> BenchmarkConfig:
    """Make a benchmark of values given as flags or as Python arguments.

    Raises
    ------
    UsageError
        An unknown key or a value that cannot be.
    """
    return _validated(dict(values), folder=Path(), raw=None, where="")


def write_config(config: BenchmarkConfig, path: Path) -> None:
    """Write a benchmark as YAML that :func:`read_config` reads back as the same benchmark."""
    import io

    from ruamel.yaml import YAML

    buffer = io.StringIO()
    yaml = YAML(typ="rt")
    yaml.width = 100_000
    yaml.dump(_quoted(config.plain(Path(path).parent)), buffer)
    write_text(path, f"# everything that decided the numbers of this run\n{buffer.getvalue()}")


def _quoted(value: Any) -> Any:
    """Put texts with the line end of IBM (U+0085) between double quotes: else YAML folds it."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, str):
        return DoubleQuotedScalarString(value) if "\x85" in value else value
    if isinstance(value, Mapping):
        return {_quoted(key): _quoted(inner) for key, inner in value.items()}
    return [_quoted(inner) for inner in value] if isinstance(value, list | tuple) else value


def _validated(values: dict[str, Any], *, folder: Path, raw: Any, where: str) -> BenchmarkConfig:
    if values.get("samplesheet"):
        from scdrugmap.data.samplesheet import read_samplesheet

        sheet = read_samplesheet(_join(folder.resolve(), str(values["samplesheet"])))
        told = {"data": [str(path) for path in sheet.files], **sheet.columns()}
        values = {**told, **values, "samplesheet": str(sheet.source)}
    try:
        config = BenchmarkConfig.model_validate(values)
    except ValidationError as err:
        raise explain(err, BenchmarkConfig, raw, where) from err
    base = folder.resolve()
    data = tuple(
        item.model_copy(update={"path": _join(base, str(item.path))}) for item in config.data
    )
    weights = {
        name: text if text == "random" else str(_join(base, text))
        for name, text in config.weights.items()
    }
    return config.model_copy(update={"data": data, "weights": weights})


def _join(base: Path, path: str) -> Path:
    """Return a path below `base` without dots; a link keeps its name, which names the dataset."""
    try:
        return Path(os.path.normpath(base / Path(path).expanduser()))
    except (RuntimeError, ValueError) as err:  # the home of nobody; a NUL
        raise UsageError(f"{path[:80]!r} is no path: {err}") from err
