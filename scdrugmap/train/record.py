"""``predictor.json``: everything a predictor says about itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdrugmap.errors import DataError
from scdrugmap.specs import LoraDefaults, Values
from scdrugmap.train.settings import FineTuning


class Record(BaseModel):
    """Base of all parts of ``predictor.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PluginInfo(Record):
    """Which installation made the predictor."""

    name: str
    distribution: str
    version: str


class WeightsInfo(Record):
    """Which weights the embeddings come from; the predictor does not hold them."""

    source: Literal["random", "published", "imported", "none"]
    digest: str
    label: str
    licence: str = ""
    commercial_use: bool | None = None
    randomize: int | None = None
    homepage: str = ""
    notice: str = Field("", description="what the licence wants said beside the predictor")


class GenesInfo(Record):
    """The genes that all training files share."""

    n_genes: int
    digest: str = Field(description="hash of names, ids and gene table")
    n_needed: int = Field(description="genes whose absence counts as missing")
    counts: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="per training file, how its gene names were found"
    )


class DatasetInfo(Record):
    """Training cells of one file."""

    name: str
    n_cells: int
    values_location: str


class TrainingInfo(Record):
    """The training cells."""

    datasets: tuple[DatasetInfo, ...]
    n_cells: int
    n_sensitive: int
    n_groups: int
    n_empty: int = Field(0, description="cells left out because they have no counts")
    n_unknown: int = Field(
        0, description="cells left out because the model knows none of their genes"
    )
    n_beyond_cap: int = Field(0, description="cells left out to bound the memory")
    max_cells: int | None = Field(None, description="cap, drawn evenly over groups; None: no cap")


class SplitInfo(Record):
    """Which part of which split was trained on."""

    split_id: str
    fold: int = Field(ge=0)


class Threshold(Record):
    """From which probability on a cell is called sensitive."""

    value: float = Field(0.5, ge=0, le=1)
    source: Literal["default", "validation"] = "default"
    n_validation: int = 0


class CalibrationInfo(Record):
    """How probabilities are scaled: the logit is divided by the temperature."""

    temperature: float = Field(gt=0)
    n_cells: int = Field(description="validation cells")
    n_groups: int = Field(description="validation groups, each of the same weight")
    loss_before: float = Field(description="mean negative log-likelihood of the validation cells")
    loss_after: float


class ConformalLevel(Record):
    """Sets of labels at one level."""

    level: float = Field(gt=0, lt=1)
    unit: Literal["group", "cell"] = Field(description="what is taken as exchangeable")
    least_p: float | None = Field(
        ge=0,
        le=1,
        description="a label with at least this probability is in the set; None: every label",
    )
    coverage: float | None = Field(
        None,
        description="share of validation cells whose set, calibrated without their group, holds "
        "their label; mean over groups; None: too few groups to tell",
    )
    coverage_sensitive: float | None = None
    coverage_resistant: float | None = None


class ConformalInfo(Record):
    """Conformal sets, calibrated on the validation cells."""

    n_cells: int
    n_groups: int
    apart: bool = Field(description="whether no validation group was trained on")
    stopped: bool = Field(
        False, description="whether the same cells told when to stop training: all is then rough"
    )
    levels: tuple[ConformalLevel, ...]


class ReferenceInfo(Record):
    """How far training embeddings lie from their mean (which is in ``reference.safetensors``)."""

    n_cells: int
    distance_quantiles: tuple[float, ...] = Field(
        min_length=101,
        max_length=101,
        description="101 quantiles (0 %, 1 %, ... 100 %) of the Euclidean distance",
    )

    @property
    def distance_99(self) -> float:
        """Distance that 99 % of the training cells do not exceed."""
        return self.distance_quantiles[99]


StoppedBy = Literal["validation cells", "training groups", "none"]


class HistoryRow(Record):
    """One evaluation of a training."""

    step: int
    epoch: float
    loss: float = Field(description="mean of the steps since the last evaluation")
    validation_loss: float | None
    learning_rate: float


class TuningInfo(Record):
    """How the network was fine-tuned; speed and memory are of the run that ended it."""

    settings: FineTuning
    lora: LoraDefaults | None = Field(description="None: the whole network was trained")
    adapted: tuple[str, ...] = Field(description="layers with adapters")
    n_trained: int = Field(description="trained parameters, head included")
    step_cells: int
    token_budget: int
    steps_per_epoch: int
    n_steps: int
    best_step: int = Field(description="step whose network this is")
    stopped_early: bool
    stopped_by: StoppedBy = Field(description="which cells told when to stop")
    n_held_out_cells: int
    n_held_out_groups: int
    history: tuple[HistoryRow, ...]
    effect: float = Field(
        description="relative change of the embedding by the training, median over cells"
    )
    n_processes: int
    cells_per_s: float
    tokens_per_s: float
    peak_bytes: int


class SelfTestInfo(Record):
    """8 synthetic cells (counts in ``reference.safetensors``) and what came out for them."""

    genes: tuple[str, ...] = Field(description="gene identities, one per column of the counts")
    tokens: tuple[str, ...] = Field(description="SHA-256 of each cell's tokens; empty: no tokens")
    p_sensitive: tuple[float | None, ...] = Field(
        description="before any temperature; None: no usable gene"
    )


class PromptInfo(Record):
    """How a text model is asked; the examples it is shown are in ``examples.json``."""

    template: str = Field(description="id:version")
    template_digest: str = Field(description="SHA-256 of the template")
    n_genes: int = Field(ge=1, description="most genes of a cell in a question")
    fields: tuple[str, ...] = Field((), description="facts that are told where they are known")
    n_examples: int = Field(0, ge=0, description="labelled cells shown before each question")
    remote: bool = Field(False, description="cells are sent to a server")


class PredictorInfo(Record):
    """The content of ``predictor.json``."""

    format: Literal[1] = 1
    scdrugmap: str = Field(description="version that made it")
    name: str = Field(description="model or estimator")
    title: str = ""
    strategy: Literal["estimator", "frozen", "lora", "full", "prompt"]
    plugin: PluginInfo
    contract: int
    numerics: int
    options: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(description="of the training")
    embedding_seed: int | None = Field(None, description="of random tensors and per-cell draws")
    precision: str = "float32"
    sample_column: str = Field("", description="column of obs with the sample, as it was given")
    head: Literal["logistic", "mlp"] | None = None
    dim: int | None = Field(None, ge=1, description="width of the embedding")
    min_genes: int | None = Field(None, description="--min-genes, as it was given")
    level: Literal["cell", "sample"] = "cell"
    values: Values
    weights: WeightsInfo | None = None
    genes: GenesInfo
    training: TrainingInfo
    split: SplitInfo
    drug: tuple[str, ...] = ()
    cancer_type: tuple[str, ...] = ()
    tissue: tuple[str, ...] = ()
    label_basis: tuple[str, ...] = ()
    threshold: Threshold = Threshold()
    calibration: CalibrationInfo | None = None
    conformal: ConformalInfo | None = None
    reference: ReferenceInfo | None = None
    prompt: PromptInfo | None = None
    tuning: TuningInfo | None = None
    self_test: SelfTestInfo
    notices: tuple[str, ...] = ()


def parse_info(data: bytes, where: str) -> PredictorInfo:
    """Read ``predictor.json``.

    Raises
    ------
    DataError
        It is no such record, or of a later version of scdrugmap.
    """
    try:
        return PredictorInfo.model_validate_json(data)
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{where}: predictor.json cannot be used: {place}: {first['msg']}",
            hint="it is damaged, or made by a later version of scdrugmap: update, or train again",
        ) from err
