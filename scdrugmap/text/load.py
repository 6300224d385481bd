"""Make a text model ready, whichever of the two kinds of specs offers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scdrugmap.errors import PluginError, UsageError
from scdrugmap.registry import get_registry
from scdrugmap.specs import Capability, ModelOptions, ModelSpec, Options, TextModelSpec, load_object

if TYPE_CHECKING:
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.text.contract import TextModel


@dataclass(frozen=True)
class LoadedText:
    """A text model with its options.

    Attributes
    ----------
    spec : ModelSpec or TextModelSpec
    options : Options
    model : TextModel
    base : LoadedModel, optional
        The embedding model that it also is, with its weights.
    """

    spec: ModelSpec | TextModelSpec
    options: Options
    model: TextModel
    base: LoadedModel | None = None

    @classmethod
    def of(cls, base: LoadedModel) -> LoadedText:
        """Return an embedding model that answers questions too.

        Raises
        ------
        PluginError
            It lacks the capability CLASSIFY.
        """
        base.spec.require(Capability.CLASSIFY)
        return cls(base.spec, base.options, cast("TextModel", base.model), base)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.spec.name

    @property
    def remote(self) -> bool:
        """Whether it asks a server."""
        return isinstance(self.spec, TextModelSpec) and self.spec.remote


def text_spec(name: str) -> ModelSpec | TextModelSpec:
    """Return the spec of a model that answers questions.

    Raises
    ------
    PluginError
        There is no such model, or it only embeds.
    """
    spec = get_registry().provided("model", name).spec
    if Capability.CLASSIFY not in spec.capabilities:
        able = [
            other
            for other, found in sorted(get_registry().models.items())
            if Capability.CLASSIFY in found.capabilities
        ]
        raise PluginError(
            f"{name} embeds cells, it answers no questions about them",
            hint=f"models that do: {', '.join(able) or 'none is installed'}",
        )
    return cast("ModelSpec | TextModelSpec", spec)


def load_text_model(
    name: str,
    *,
    settings: Mapping[str, str] | None = None,
    options: Options | None = None,
    weights: str | Path | None = None,
    randomize: int | None = None,
    seed: int = 0,
) -> LoadedText:
    """Build a text model; nothing is sent anywhere.

    Parameters
    ----------
    name : str
    settings : mapping of str to str
        Options as ``--set`` gives them; not together with `options`.
    options : Options, optional
        Instance of the spec's options class.
    weights, randomize, seed
        For models on this machine, see :func:`scdrugmap.model.load.load_model`.

    Raises
    ------
    PluginError
        There is no such model, or it answers no questions.
    UsageError
        An option that there is not; weights for a model that has none.
    WeightsError
        The weights are missing or damaged.
    """
    from scdrugmap.model.load import load_model, parse_options

    spec = text_spec(name)
    if isinstance(spec, ModelSpec):
        base = load_model(
            spec,
            settings=settings,
            options=cast("ModelOptions | None", options),
            weights=weights,
            randomize=randomize,
            seed=seed,
        )
        return LoadedText.of(base)
    if weights is not None or randomize is not None:
        raise UsageError(f"{name} has no weights here", hint="leave --weights and --randomize out")
    if options is None:
        options = parse_options(spec.options, settings or {}, name)
    return LoadedText(spec, options, load_object(spec.factory)(options))
