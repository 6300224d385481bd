"""What ``run.json`` holds: everything that decides the numbers of a benchmark, and what was seen.

Written by the benchmark, read by the report and by whoever repeats a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import write_text
from scdrugmap.plain import ascii_escapes

RUN_FILE = "run.json"
CELL_MAP_FILE = "cellmap.tsv.gz"
COMPARISONS_FILE = "comparisons.tsv"


class Record(BaseModel):
    """Base of the records of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetRecord(Record):
    """One file of cells, as it was read."""

    name: str
    path: str
    study: str = ""
    facets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="its tissues, cancer types, drugs, ..."
    )
    n_cells: int = Field(description="cells of the file, after --where")
    n_used: int = Field(description="labelled cells that took part")
    n_sensitive: int
    n_resistant: int
    n_samples: int
    n_groups: int = Field(description="units that a sound split never divides")
    n_genes: int = Field(description="after duplicate names were joined")
    values: str = Field(description="counts or lognorm")
    location: str = Field(description="where the values are: X, layers/NAME or raw/X")
    gene_id: str
    gene_counts: dict[str, int] = Field(description="how gene names were found, by kind")
    simulated: bool = False
    notices: tuple[str, ...] = ()


class CoverageRecord(Record):
    """How many genes of a file a model knows."""

    dataset: str
    n_known: int
    n_genes: int
    n_unusable: int = Field(0, description="cells without a single known gene")


class ModelRecord(Record):
    """One row of every table of results."""

    name: str = Field(description="what the tables call it")
    model: str = Field("", description="the model or estimator that a control is made of")
    title: str
    kind: Literal["estimator", "model"]
    strategy: str
    control: str = Field(
        "",
        description="constant, technical, pseudobulk, untrained or permuted; empty: it competes. "
        "Of permuted the seed in the tables is the number of the permutation",
    )
    level: Literal["cell", "sample"] = "cell"
    weights: str = Field("", description="label of the weights, as shown everywhere")
    untrained: bool = Field(False, description="random tensors: the control, means nothing")
    identity: dict[str, Any] = Field(default_factory=dict)
    coverage: tuple[CoverageRecord, ...] = ()
    licence: str = ""
    commercial_use: bool | None = None
    citation: str = ""
    homepage: str = ""
    plugin: str = ""


class ProtocolRecord(Record):
    """A way of dividing the cells, and what became of it."""

    name: str
    family: Literal["sound", "paper"]
    question: str
    status: Literal["evaluated", "refused"]
    reason: str = Field("", description="why it was refused")
    hint: str = ""
    split_id: str = ""
    n_folds: int = 0
    heads: dict[str, str] = Field(default_factory=dict)
    permuted: tuple[str, ...] = Field((), description="splits of permuted labels, in their order")
    tuning: dict[str, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="settings of fine-tuning: by model and strategy, per fold"
    )
    deviations: tuple[str, ...] = Field(
        (), description="where it departs from what the paper's authors did"
    )
    notices: tuple[str, ...] = ()


class RunRecord(Record):
    """The content of ``run.json``."""

    format: Literal[1] = 1
    name: str
    config: dict[str, Any] = Field(description="the resolved configuration")
    config_id: str = Field(description="hash of all that decides the numbers")
    datasets: tuple[DatasetRecord, ...]
    models: tuple[ModelRecord, ...]
    protocols: tuple[ProtocolRecord, ...]
    notices: tuple[str, ...] = ()
    cell_map: str = Field("", description="how the cell map was made")
    provenance: dict[str, Any] = Field(default_factory=dict)
    times: dict[str, Any] = Field(default_factory=dict, description="never part of a hash")


def run_text(run: RunRecord) -> str:
    """Return the record as ``run.json`` holds it."""
    return ascii_escapes(run.model_dump_json(indent=2)) + "\n"


def write_run(folder: Path, run: RunRecord) -> None:
    """Write ``run.json`` of a run folder."""
    write_text(folder / RUN_FILE, run_text(run))


def read_run(folder: Path) -> RunRecord:
    """Read ``run.json`` of a run folder.

    Raises
    ------
    UsageError
        The folder is missing or holds no finished run.
    DataError
        ``run.json`` is damaged or of another format.
    """
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no finished run ({RUN_FILE} is missing)",
            hint="run `scdrugmap benchmark ... -o` with this folder to its end first",
        )
    try:
        return RunRecord.model_validate_json(path.read_text("utf-8"))
    except UnicodeDecodeError as err:
        problem = str(err)
    except ValidationError as err:
        first = err.errors()[0]
        problem = ".".join(map(str, first["loc"])) + f": {first['msg']}"
    raise DataError(
        f"{path} cannot be read: {problem.removeprefix(': ')}",
        hint="run the benchmark again with --overwrite",
    )
