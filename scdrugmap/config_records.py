"""What a benchmark is made of, as frozen records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from scdrugmap.config_values import (
    CONTROLS,
    FOLDS,
    Control,
    Family,
    Head,
    Names,
    Price,
    Protocols,
    Strategies,
    Text,
    Words,
    as_controls,
    as_tuple,
    pair,
    unique,
)
from scdrugmap.errors import UsageError
from scdrugmap.files import hash_json
from scdrugmap.train.settings import FineTuning

_OF_PAPER = {
    "study": "study_group",
    "tissue": "tissue",
    "cancer_type": "cancer_type_level1",
    "drug_type": "drug_type",
    "drug": "regimen",
    "collection": "collection",
}
"""Facts of a file, and the column of the paper's table that has them."""

_NO_EFFECT = ("device", "token_budget", "allow_network", "max_cost", "price", "api_key_env")
"""Fields that change how fast or whether a number comes, never the number."""


class Section(BaseModel):
    """Base of the records of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataFile(Section):
    """One file of cells."""

    path: Path = Field(description="h5ad, zarr, 10x h5 or 10x folder; relative to this file")
    name: str = Field("", description="name of the dataset; default: the file's stem")
    study: str = Field("", description="name of the study; default: the name of the dataset")
    paper: str = Field(
        "",
        description="which of the paper's datasets it is (P01 to E24): gives study, tissue, cancer "
        "type, drug type, drug and collection where nothing else is said",
    )
    tissue: str = Field("", description="tissue of all its cells")
    cancer_type: str = Field("", description="cancer type of all its cells")
    drug_type: str = Field("", description="kind of treatment of all its cells")
    drug: str = Field("", description="drug or regimen (a + b) of all its cells")
    collection: Literal["", "primary", "external"] = Field(
        "", description="primary or external, for the protocol external"
    )

    @property
    def dataset(self) -> str:
        """Name of the dataset in all tables."""
        from scdrugmap.data.containers import dataset_name

        return self.name or dataset_name(self.path)

    def facts(self) -> dict[str, str]:
        """Return what is said of all cells of the file, by column; nothing empty.

        Raises
        ------
        UsageError
            The paper has no such dataset.
        """
        known: dict[str, str] = {}
        if self.paper:
            from scdrugmap.data.paper import paper_datasets

            found = paper_datasets().get(self.paper)
            if found is None:
                raise UsageError(
                    f"{self.path}: the paper has no dataset {self.paper!r}",
                    hint="they are P01 to P36 and E01 to E24: see `scdrugmap datasets list`",
                )
            known = {name: str(found.facts[column] or "") for name, column in _OF_PAPER.items()}
        own = {name: getattr(self, name) for name in _OF_PAPER}
        merged = known | {name: value for name, value in own.items() if value}
        return {name: value for name, value in merged.items() if value}


class Adapting(Section):
    """How one model is fine-tuned, without what all share: steps, batches, and when to stop."""

    targets: str | None = Field(
        None, description="regular expression of the adapted layers; default: the model's own"
    )
    r: int | None = Field(None, ge=1, description="rank of the adapters")
    alpha: float | None = Field(None, gt=0, description="adapters are scaled by alpha / r")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout before the adapters")
    learning_rate: float | None = Field(None, gt=0, description="highest rate of the network")
    gradient_checkpointing: bool | None = Field(
        None, description="compute activations twice to hold fewer of them"
    )


class Override(Section):
    """What differs for one model."""

    strategies: Strategies | None = Field(
        None, description="how this model is used; one that it does not offer is an error"
    )
    heads: dict[Family, Head] = Field(
        default_factory=dict, description="what is trained on its embeddings, per family"
    )
    tuning: Adapting = Field(
        default_factory=Adapting,
        description="how it is fine-tuned; steps and early stopping are the same for all models",
    )


def _as_file(value: Any) -> Any:
    """Take a plain path as a file without further keys."""
    return {"path": value} if isinstance(value, str | Path) else value


File = Annotated[DataFile, BeforeValidator(_as_file)]


class BenchmarkConfig(Section):
    """Everything that decides the numbers of a benchmark."""

    data: Annotated[tuple[File, ...], BeforeValidator(as_tuple)] = Field(
        min_length=1, description="files of labelled cells"
    )
    samplesheet: Path | None = Field(
        None,
        description="table with a line per sample that describes the files, instead of columns of "
        "obs; gives data, label, group, sample and what else it holds",
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
    tissue: str | None = Field(None, description="column of tissues; results are grouped by it")
    cancer_type: str | None = Field(
        None, description="column of cancer types, for loco; results are grouped by it"
    )
    drug_type: str | None = Field(
        None, description="column of kinds of treatment; results are grouped by it"
    )
    drug: str | None = Field(
        None, description="column of drugs or regimens, for lodrug; results are grouped by it"
    )
    collection: str | None = Field(
        None, description="column that holds primary and external, for the protocol external"
    )
    where: Annotated[
        tuple[Annotated[str, AfterValidator(pair)], ...], BeforeValidator(as_tuple)
    ] = Field((), description="take only cells with COLUMN=VALUE in obs")
    layer: str | None = Field(None, description="where the values are: X, raw or a layer")
    values: Literal["counts", "lognorm"] | None = Field(None, description="what the values are")
    gene_id: Literal["symbol", "ensembl"] | None = Field(None, description="kind of gene names")
    round_counts: bool = Field(False, description="round fractional counts (RSEM)")
    transpose: bool = Field(False, description="the files hold genes in rows")

    models: Names = Field(
        (), description="models and estimators; default: all built-in estimators and randproj"
    )
    strategies: Strategies | None = Field(
        None,
        description="how models are used: frozen (a head on embeddings), lora, full, or prompt "
        "(text models); models that do not offer one are left out of it and named; default: "
        "frozen, and prompt for text models",
    )
    tuning: FineTuning = Field(
        default_factory=FineTuning,
        description="how lora and full train: the same number of steps and the same rule to stop "
        "early for every model",
    )
    shots: int = Field(
        0, ge=0, description="cells of each label that prompt shows as examples; 0: none"
    )
    overrides: dict[str, Override] = Field(
        default_factory=dict, description="per model: what differs for it"
    )
    controls: Annotated[
        tuple[Control, ...], BeforeValidator(as_controls), AfterValidator(unique)
    ] = Field(
        tuple(CONTROLS),  # type: ignore[arg-type]
        description="what runs beside the models to show what their numbers are worth; true: "
        "all, false: none",
    )
    permutations: int = Field(
        1, ge=1, le=1000, description="times that labels are dealt out anew over groups"
    )
    permuted: Names = Field(
        ("hvg-logreg",),
        min_length=1,
        description="models and estimators that are trained on permuted labels",
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

    protocols: Protocols = Field(
        ("pooled-group",),
        min_length=1,
        description="how cells are divided; the first is the main one; paper: random cells, with "
        "the settings of the paper's authors per model",
    )
    folds: int | None = Field(
        None, ge=2, le=1000, description="folds of a protocol; default: 5, of paper's 10"
    )
    targets: Names = Field(
        (), description="what is held out, where not everything in turn: datasets, studies, ..."
    )
    shot_draws: int = Field(
        10, ge=10, le=1000, description="draws of labelled samples of few-shot protocols"
    )
    validation: bool = Field(
        False, description="set groups of the training part aside for thresholds and stopping"
    )
    split_seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the splits")
    seeds: Annotated[tuple[int, ...], BeforeValidator(as_tuple), AfterValidator(unique)] = Field(
        (0, 1, 2), min_length=1, description="seeds of training, all on one split"
    )
    max_cells: int | None = Field(
        None, ge=2, description="most cells of all files together, drawn by group and label"
    )
    draws: int = Field(2000, ge=0, le=100_000, description="bootstrap draws of the intervals")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the networks")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    token_budget: int | None = Field(None, ge=1, description="most tokens in a batch")
    allow_network: bool = Field(
        False, description="cells may be sent to the servers of text models; needs max_cost"
    )
    max_cost: float | None = Field(
        None, gt=0, description="most US dollars that text models may cost in the whole run"
    )
    price: Price | None = Field(
        None,
        description="US dollars per million tokens of a text model, READ/WRITTEN; default: of a "
        "table of known models",
    )
    api_key_env: str | None = Field(
        None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable with the key of a text model's server, never the key; "
        "default: OPENAI_API_KEY for OpenAI, none for other servers",
    )

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
            for key in ("weights", "settings", "overrides"):
                for name in getattr(self, key):
                    if name not in self.known_names():
                        raise ValueError(f"{key} names {name}, which is not among the models")
        return self

    def known_names(self) -> tuple[str, ...]:
        """Return the models and estimators that run, controls included."""
        estimators = [name for control in self.controls for name in CONTROLS[control]]
        permuted = self.permuted if "permuted" in self.controls else ()
        return tuple(dict.fromkeys((*self.models, *estimators, *permuted)))

    def n_folds(self, family: Family) -> int:
        """Return the folds of the protocols of a family."""
        return self.folds or FOLDS[family]

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
        heads: dict[Family, Head] = {"sound": "logistic", "paper": "mlp", **self.heads}
        models = self.models or default_models()
        resolved = self.model_copy(update={"models": models, "heads": heads})
        names = resolved.known_names()
        for name in names:
            if name not in registry.estimators:
                registry.provided("model", name)
        protocols = [get_protocol(name) for name in self.protocols]
        if self.targets and not any(protocol.holds_out for protocol in protocols):
            raise UsageError(
                f"targets names {self.targets[0]!r}, but none of the protocols holds anything out",
                hint="leave targets out, or use lodo, loso, loco, lodrug, external or few-shot",
            )
        for key in (*self.weights, *self.settings, *self.overrides):
            if key not in names:
                raise UsageError(f"{key} has weights or options, but is not among the models")
        return resolved

    def identity(self) -> str:
        """Return the hash of all that decides numbers, wherever the files lie."""
        # What a samplesheet says is part of the cohort's content, wherever the sheet lies.
        fields = self.model_dump(mode="json", exclude={*_NO_EFFECT, "samplesheet"})
        fields["data"] = [
            {"name": item.dataset, **item.model_dump(mode="json", exclude={"name", "path"})}
            for item in self.data
        ]
        # Jobs are known by what weights hold; here counts which ones, wherever the folder lies.
        fields["weights"] = {name: Path(path).name for name, path in self.weights.items()}
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
        if self.samplesheet is not None:
            fields["samplesheet"] = os.path.relpath(self.samplesheet, folder.resolve())
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
