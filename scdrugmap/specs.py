"""What a plugin says about its models, estimators, datasets and commands.

Everything here is light (pydantic only), frozen and JSON-able: specs are read at every start, by
``scdrugmap models`` and by the web server, without importing torch. The road to heavy code is the
``factory`` of a spec, a dotted path that is resolved when the thing is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from scdrugmap.errors import PluginError

CONTRACT = 1
"""Number of the contract between core and plugins that this core speaks."""

SUPPORTED_CONTRACTS = frozenset({1})
"""Contracts understood by this core; an old one stays for two minor releases."""

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
ESTIMATOR_PATTERN = r"^[a-z][a-z0-9_-]*$"
FACTORY_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

Values = Literal["counts", "lognorm"]
GeneId = Literal["symbol", "ensembl"]


class Capability(StrEnum):
    """What a model can do."""

    EMBED = "embed"
    FINETUNE = "finetune"
    CLASSIFY = "classify"
    GENES = "embed-genes"


def load_object(path: str) -> Any:
    """Return the object named ``package.module:name``.

    Raises
    ------
    PluginError
        The module cannot be imported or has no such name.
    """
    module_name, _, name = path.partition(":")
    try:
        return attrgetter(name)(importlib.import_module(module_name))
    except Exception as err:  # the border to foreign code: a plugin's module may raise anything
        raise PluginError(
            f"{path} cannot be loaded: {' '.join(f'{type(err).__name__}: {err}'.split())}",
            hint="reinstall the plugin that provides it, or see `scdrugmap plugins list`",
        ) from err


def _class_from_path(value: Any) -> Any:
    return load_object(value) if isinstance(value, str) else value


def _class_to_path(value: type) -> str:
    return f"{value.__module__}:{value.__qualname__}"


class Options(BaseModel):
    """Base of the options of a model or estimator: what ``--set key=value`` can name.

    Subclasses add fields with a default, a range and a description; the command-line help, the
    documentation and the cache key are made from them. Options hold only what changes results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelOptions(Options):
    """Base of the options of an embedding model."""

    variant: str = Field("", description="published checkpoint or `tiny`; empty: the default one")


OptionsClass = Annotated[
    type[Options],
    BeforeValidator(_class_from_path),
    PlainSerializer(_class_to_path, return_type=str),
]


def foreign_contract(name: str, contract: int) -> str:
    """Say that a spec is written for a contract this core does not speak, and what to update."""
    speaks = ", ".join(map(str, sorted(SUPPORTED_CONTRACTS)))
    update = "scdrugmap" if contract > max(SUPPORTED_CONTRACTS) else "the plugin"
    return (
        f"{name} is written for contract {contract}; this scdrugmap speaks {speaks}: "
        f"update {update}"
    )


class Spec(BaseModel):
    """Base of all specs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _explain_foreign_contract(
        cls, values: Any, handler: ModelWrapValidatorHandler[Self]
    ) -> Self:
        """Name the contract, not the first unknown field, when a newer or older spec does not fit."""
        try:
            return handler(values)
        except ValidationError as err:
            contract = values.get("contract") if isinstance(values, dict) else None
            if isinstance(contract, int) and contract not in SUPPORTED_CONTRACTS:
                name = str(values.get("name", cls.__name__))
                raise PluginError(foreign_contract(name, contract)) from err
            raise


def _sorted_list(values: Iterable[str]) -> list[str]:
    return sorted(values)


# Sets are written in one order, so that the same spec gives the same JSON in every process.
ValuesSet = Annotated[
    frozenset[Values], PlainSerializer(_sorted_list, return_type=list[str], when_used="json")
]
CapabilitySet = Annotated[
    frozenset[Capability], PlainSerializer(_sorted_list, return_type=list[str], when_used="json")
]


class Variant(Spec):
    """One size of a model: a published checkpoint, or ``tiny`` (2 layers, 32 wide) for trials."""

    name: str
    title: str = ""
    sizes: dict[str, int | float | str | bool] = Field(
        description="what the network is built from when there is no weights file to read it from"
    )
    published: bool = True


class WeightFile(Spec):
    """One file of a published set of weights."""

    path: str = Field(description="path inside the folder, as its authors ship it")
    sha256: str | None = Field(None, description="hash seen by a third party; informative")
    n_bytes: int | None = None


class WeightSet(Spec):
    """A published set of weights and what one must know before using it."""

    name: str
    files: tuple[WeightFile, ...]
    licence: str
    commercial_use: bool | None = Field(None, description="None: the authors do not say")
    homepage: str
    needs_login: bool = False
    redistributable: bool = False
    notes: str = ""
    notice: str = Field(
        "", description="what its licence wants said before use and beside what is made with it"
    )


class LoraDefaults(Spec):
    """Where low-rank adapters sit by default.

    ``targets`` is a regular expression matched (``re.fullmatch``) against the names of the
    ``nn.Linear`` submodules of the network.
    """

    targets: str
    r: int = Field(8, ge=1)
    alpha: float = Field(8, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)


class ModelSpec(Spec):
    """An embedding model: cells in, one vector per cell out."""

    name: str = Field(pattern=NAME_PATTERN)
    title: str
    contract: int
    numerics: int = Field(ge=1, description="raised whenever results change; part of cache keys")
    gene_id: GeneId
    species: tuple[str, ...]
    accepts: ValuesSet
    capabilities: CapabilitySet
    cell_batching: Literal["length", "group"] = "length"
    options: OptionsClass
    variants: tuple[Variant, ...] = Field(min_length=1, description="the first is the default")
    weights: tuple[WeightSet, ...] = Field((), description="empty: the model needs no weights")
    lora: LoraDefaults | None = None
    min_genes: int = Field(500, ge=1, description="fewest genes of a file the model must know")
    citation: str
    code_licence: str
    weights_licence: str = ""
    homepage: str
    factory: str = Field(pattern=FACTORY_PATTERN, description="`build(options, weights, seed)`")
    weights_reader: str | None = Field(
        None,
        pattern=FACTORY_PATTERN,
        description="`read_published(folder, variant)`; needed where `weights` lists any",
    )

    @field_validator("variants", "weights")
    @classmethod
    def _names_are_unique(cls, named: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [item.name for item in named]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is there twice")
        return named

    def require(self, capability: Capability) -> None:
        """Raise unless the model declares a capability.

        Raises
        ------
        PluginError
            The capability is not declared.
        """
        if capability not in self.capabilities:
            has = ", ".join(sorted(self.capabilities)) or "none"
            raise PluginError(
                f"model {self.name} cannot {capability.value} (it can: {has})",
                hint="`scdrugmap models list` shows what each model can do",
            )

    def variant(self, name: str = "") -> Variant:
        """Return the variant of that name; the default one for the empty name.

        Raises
        ------
        PluginError
            There is no such variant.
        """
        if not name:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise PluginError(f"model {self.name} has no variant {name!r}", hint=f"it has: {names}")

    @property
    def needs_weights(self) -> bool:
        """Whether a user must fetch files before the model means anything."""
        return bool(self.weights)


class TextModelSpec(Spec):
    """A language model that reads a prompt and answers; it gives no embedding."""

    name: str = Field(pattern=NAME_PATTERN)
    title: str
    contract: int
    numerics: int = Field(ge=1)
    capabilities: CapabilitySet = frozenset({Capability.CLASSIFY})
    remote: bool = Field(description="True: cells leave this machine; needs --allow-network")
    accepts: ValuesSet = Field(
        frozenset({"counts", "lognorm"}), description="either: it reads the order of genes only"
    )
    secrets: tuple[str, ...] = Field((), description="environment variables that hold keys")
    options: OptionsClass
    citation: str
    code_licence: str
    homepage: str
    factory: str = Field(pattern=FACTORY_PATTERN)


class EstimatorSpec(Spec):
    """A predictor that is trained from expression alone and needs no foundation model."""

    name: str = Field(pattern=ESTIMATOR_PATTERN)
    title: str
    contract: int
    numerics: int = Field(ge=1)
    level: Literal["cell", "sample"] = "cell"
    accepts: ValuesSet = frozenset({"counts", "lognorm"})
    options: OptionsClass = Options
    factory: str = Field(pattern=FACTORY_PATTERN)


class DatasetSpec(Spec):
    """A labelled dataset that a plugin offers or a user registered."""

    name: str
    title: str = ""
    path: str | None = None
    label: str = ""
    group: str = ""
    sensitive: tuple[str, ...] = ()
    resistant: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    facts: dict[str, str | int | float | None] = Field(default_factory=dict)


class CommandSpec(Spec):
    """A command that a plugin adds to the command line."""

    name: str = Field(pattern=ESTIMATOR_PATTERN)
    help: str
    factory: str = Field(pattern=FACTORY_PATTERN, description="path of a click.Command")
