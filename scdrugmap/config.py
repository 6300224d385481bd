"""What a benchmark runs: one frozen record, from a YAML file or from command-line flags.

The resolved record is written beside the results, and reading it back gives the same run.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from scdrugmap.errors import UsageError
from scdrugmap.files import hash_json, write_text

MOST_BYTES = 1_000_000
_LONGEST_VALUE = 80  # characters of a value that an error shows
_MOST_NODES = 20_000  # values of a file, aliases counted as often as they are used

Family = Literal["sound", "paper"]
Head = Literal["logistic", "mlp"]

_NO_EFFECT = ("device", "token_budget")
"""Fields that change how fast a number comes, never the number."""


def text_of(value: Any) -> Any:
    """Turn a plain value into the text that ``--set key=value`` would have; text stays."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return ",".join(str(text_of(item)) for item in value)
    return value


def _as_tuple(value: Any) -> Any:
    """Take one word as a list of one."""
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


def _pair(text: str) -> str:
    column, equals, _ = text.partition("=")
    if not equals or not column:
        raise ValueError("write COLUMN=VALUE")
    return text


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return values


def _as_file(value: Any) -> Any:
    """Take a plain path as a file without further keys."""
    return {"path": value} if isinstance(value, str | Path) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_unique)]
Text = Annotated[str, BeforeValidator(text_of)]


class Section(BaseModel):
    """Base of the records of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataFile(Section):
    """One file of cells."""

    path: Path = Field(description="h5ad, zarr, 10x h5 or 10x folder; relative to this file")
    name: str = Field("", description="name of the dataset; default: the file's stem")
    study: str = Field("", description="name of the study; default: the name of the dataset")

    @property
    def dataset(self) -> str:
        """Name of the dataset in all tables."""
        from scdrugmap.data.containers import dataset_name

        return self.name or dataset_name(self.path)


File = Annotated[DataFile, BeforeValidator(_as_file)]


class BenchmarkConfig(Section):
    """Everything that decides the numbers of a benchmark."""

    data: Annotated[tuple[File, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="files of labelled cells"
    )
    label: str = Field(min_length=1, description="column of obs with the response")
    sensitive: Words = Field((), description="labels that mean sensitive")
    resistant: Words = Field((), description="labels that mean resistant")
    drop: Words = Field((), description="labels of cells to set aside")
    group: str | None = Field(None, description="column of donors: patients, animals, cultures")
    sample: str | None = Field(None, description="column of samples; default: the group")
    study: str | None = Field(None, description="column of studies; default: the dataset")
    cell_line: str | None = Field(
        None, description="column of cell lines, kept together in a study"
    )
    control: str | None = Field(None, description="column of shared controls, kept together")
    where: Annotated[
        tuple[Annotated[str, AfterValidator(_pair)], ...], BeforeValidator(_as_tuple)
    ] = Field((), description="take only cells with COLUMN=VALUE in obs")
    layer: str | None = Field(None, description="where the values are: X, raw or a layer")
    values: Literal["counts", "lognorm"] | None = Field(None, description="what the values are")
    gene_id: Literal["symbol", "ensembl"] | None = Field(None, description="kind of gene names")
    round_counts: bool = Field(False, description="round fractional counts (RSEM)")
    transpose: bool = Field(False, description="the files hold genes in rows")

    models: Names = Field(
        (), description="models and estimators; default: all built-in estimators and randproj"
    )
    strategies: Annotated[tuple[Literal["frozen"], ...], BeforeValidator(_as_tuple)] = Field(
        ("frozen",), min_length=1, description="how models are used; estimators have only one way"
    )
    heads: dict[Family, Head] = Field(
        default_factory=dict,
        description="what is trained on embeddings, per family of protocols; default: sound "
        "logistic, paper mlp",
    )
    weights: dict[str, str] = Field(
        default_factory=dict, description="per model: folder of the weights, or random"
    )
    settings: dict[str, dict[str, Text]] = Field(
        default_factory=dict, description="per model or estimator: its options"
    )
    randomize: int | None = Field(
        None, ge=0, description="replace all tensors of the weights by random ones of this seed"
    )
    min_genes: int | None = Field(None, ge=1, description="fewest known genes to go on with")

    protocols: Names = Field(
        ("pooled-group",),
        min_length=1,
        description="how cells are divided; the first is the main one",
    )
    folds: int = Field(5, ge=2, le=1000, description="folds of a protocol")
    split_seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the splits")
    seeds: Annotated[tuple[int, ...], BeforeValidator(_as_tuple), AfterValidator(_unique)] = Field(
        (0,), min_length=1, description="seeds of training, all on one split"
    )
    max_cells: int | None = Field(
        None, ge=2, description="most cells of all files together, drawn by group and label"
    )
    draws: int = Field(2000, ge=0, le=100_000, description="bootstrap draws of the intervals")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the networks")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    token_budget: int | None = Field(None, ge=1, description="most tokens in a batch")

    @field_validator("seeds")
    @classmethod
    def _seeds_are_not_negative(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0:
            raise ValueError("a seed must not be negative")
        return seeds

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [item.dataset for item in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two files are called {twice[0]!r}, and a cell is known by dataset and name: "
                "give one of them another `name`"
            )
        if self.models:
            for key in ("weights", "settings"):
                for name in getattr(self, key):
                    if name not in self.models:
                        raise ValueError(f"{key} names {name}, which is not among the models")
        return self

    def resolved(self) -> BenchmarkConfig:
        """Return the same with the default models written out and every name looked up.

        Raises
        ------
        PluginError
            A model or estimator is not installed.
        UsageError
            A protocol, or an option of a model, does not exist.
        """
        from scdrugmap.evaluation.protocols import get_protocol
        from scdrugmap.registry import get_registry

        registry = get_registry()
        names = self.models or default_models()
        for name in names:
            if name not in registry.estimators:
                registry.model(name)
        for protocol in self.protocols:
            get_protocol(protocol)
        for key in (*self.weights, *self.settings):
            if key not in names:
                raise UsageError(f"{key} has weights or options, but is not among the models")
        heads: dict[Family, Head] = {"sound": "logistic", "paper": "mlp", **self.heads}
        return self.model_copy(update={"models": names, "heads": heads})

    def identity(self) -> str:
        """Return the hash of all that decides numbers, wherever the files lie."""
        fields = self.model_dump(mode="json", exclude=set(_NO_EFFECT))
        fields["data"] = [{"name": item.dataset, "study": item.study} for item in self.data]
        return hash_json(fields)

    def plain(self, folder: Path) -> dict[str, Any]:
        """Return what a YAML file in `folder` would say, paths relative to it."""
        fields = self.model_dump(mode="json", exclude_none=True)
        fields["data"] = [
            {
                **{key: value for key, value in item.items() if value},
                "path": os.path.relpath(item["path"], folder.resolve()),
            }
            for item in fields["data"]
        ]
        fields["weights"] = {
            name: path if path == "random" else os.path.relpath(path, folder.resolve())
            for name, path in fields["weights"].items()
        }
        return fields


def default_models() -> tuple[str, ...]:
    """Return what runs when nobody names a model: all built-in estimators and randproj."""
    from scdrugmap.registry import get_registry

    provided = get_registry().items["estimator"]
    return (*(name for name, item in provided.items() if item.plugin.built_in), "randproj")


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
    except YAMLError as err:
        raise UsageError(f"{path} is no YAML: {' '.join(str(err).split())}") from err
    if not isinstance(raw, Mapping):
        raise UsageError(
            f"{path} holds no keys", hint="it needs at least `data` and `label`; see the tutorial"
        )
    return _validated(_plain(raw, [0]), folder=path.parent, raw=raw, where=str(path))


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
    yaml.dump(config.plain(Path(path).parent), buffer)
    write_text(path, f"# everything that decided the numbers of this run\n{buffer.getvalue()}")


def _validated(values: dict[str, Any], *, folder: Path, raw: Any, where: str) -> BenchmarkConfig:
    try:
        config = BenchmarkConfig.model_validate(values)
    except ValidationError as err:
        raise _explain(err, raw, where) from err
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
    return Path(os.path.normpath(base / Path(path).expanduser()))


def _explain(err: ValidationError, raw: Any, where: str) -> UsageError:
    """Turn the first complaint into one line with its place and a remedy."""
    first = min(err.errors(), key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    line = _line(raw, list(first["loc"]))
    place = f"{where}, line {line}: " if line else (f"{where}: " if where else "")
    more = f" (and {err.error_count() - 1} more)" if err.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] == "extra_forbidden":
        known = _fields(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return UsageError(
            f"{place}there is no key {key!r}{more}", hint=f"{hint}there are: {', '.join(known)}"
        )
    if first["type"] == "missing":
        field = BenchmarkConfig.model_fields.get(str(first["loc"][0]))
        described = field.description if field and field.description else ""
        return UsageError(f"{place}the key {key!r} is missing{more}", hint=f"{key}: {described}")
    name = str(first["loc"][0]) if first["loc"] else ""
    field = BenchmarkConfig.model_fields.get(name)
    value = repr(first["input"])
    value = f" = {value}" if len(value) <= _LONGEST_VALUE else ""
    subject = f"{key}{value}: " if key else ""
    hint = f"{name}: {field.description}" if field and field.description else ""
    return UsageError(f"{place}{subject}{message}{more}", hint=hint)


def _fields(location: tuple[int | str, ...]) -> list[str]:
    nested = len(location) > 1 and location[0] == "data"
    return list((DataFile if nested else BenchmarkConfig).model_fields)


def _line(raw: Any, location: list[Any]) -> int | None:
    """Return the line (from 1) of the deepest part of a location that the file has."""
    line, node = None, raw
    for part in location:
        try:
            if isinstance(node, Mapping) and part in node:
                line = node.lc.key(part)[0] + 1  # type: ignore[attr-defined]
            elif isinstance(node, list) and isinstance(part, int):
                line = node.lc.item(part)[0] + 1  # type: ignore[attr-defined]
            else:
                break
            node = node[part]
        except (AttributeError, KeyError, IndexError):
            break
    return line


def _plain(node: Any, seen: list[int]) -> Any:
    """Return a tree of plain values; aliases that grow without bound are refused."""
    seen[0] += 1
    if seen[0] > _MOST_NODES:
        raise UsageError(f"the configuration holds more than {_MOST_NODES:,} values")
    if isinstance(node, Mapping):
        return {_plain(key, seen): _plain(value, seen) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item, seen) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
