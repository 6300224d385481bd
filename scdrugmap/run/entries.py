"""The rows of a benchmark's results: every model by strategy, every estimator, every control.

A model that does not offer a strategy asked of all models is left out of it and named; one that
does not offer a strategy asked of it alone ends the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scdrugmap.config import CONTROLS
from scdrugmap.errors import PluginError, UsageError
from scdrugmap.registry import get_registry
from scdrugmap.specs import Capability, ModelSpec, TextModelSpec
from scdrugmap.train.settings import FINE_TUNING

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig

Kind = Literal["estimator", "model", "text"]

UNTRAINED_SEED = 0
"""Seed of the tensors of the control ``untrained``."""

_CAPABILITIES = {
    "frozen": Capability.EMBED,
    "lora": Capability.FINETUNE,
    "full": Capability.FINETUNE,
    "prompt": Capability.CLASSIFY,
}
_NAME_SAMPLE = "name it with sample (--sample) or group (--group)"
_CONTROL_OF = {name: control for control, names in CONTROLS.items() for name in names}


@dataclass(frozen=True)
class Entry:
    """A row of the results.

    Attributes
    ----------
    name : str
        What the tables call it: that of the model, with ``-untrained`` or ``-permuted`` for
        controls made of it.
    model : str
        Name of the model or estimator.
    kind : {"estimator", "model", "text"}
    strategy : str
    control : str
        Which control it is; empty: it competes.
    randomize : int or None
        Seed of the tensors that replace those of the weights.
    permuted : bool
        Trained and scored on labels that were dealt out anew over groups.
    """

    name: str
    model: str
    kind: Kind
    strategy: str
    control: str = ""
    randomize: int | None = None
    permuted: bool = False

    @property
    def network(self) -> tuple[str, int | None]:
        """What entries share that need the same network and embeddings."""
        return self.model, self.randomize


def list_entries(config: BenchmarkConfig) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Return the entries of a resolved configuration, cheap ones first, and what to say of them.

    Raises
    ------
    PluginError
        A model does not offer a strategy that was asked of it, or none of those asked of all.
    UsageError
        The name of a control is that of a model.
    """
    registry = get_registry()
    entries: list[Entry] = []
    notices: list[str] = []
    known = _knows_groups(config)
    estimators = [
        *(name for name in config.models if name in registry.estimators),
        *(name for control in config.controls for name in CONTROLS[control]),
    ]
    for name in dict.fromkeys(estimators):
        if name in config.models or known or _CONTROL_OF[name] != "pseudobulk":
            control = _CONTROL_OF.get(name, "")
            entries.append(Entry(name, name, "estimator", "estimator", control))
    if "permuted" in config.controls:
        if known:
            entries += [_permuted(config, name) for name in config.permuted]
        else:
            notices.append(
                "the control permuted is left out: labels are dealt out over groups, and no column "
                "of donors or samples is named"
            )
    for name in config.models:
        if name in registry.estimators:
            continue
        spec = registry.provided("model", name).spec
        strategies, said = _strategies(config, spec)
        notices += said
        control = "untrained" if _is_untrained(config, spec) else ""
        seed = config.randomize if _has_weights(config, spec) else None
        entries += [Entry(name, name, _kind(s), s, control, seed) for s in strategies]
        if "untrained" in config.controls and not control and _has_weights(config, spec):
            entries.append(
                Entry(f"{name}-untrained", name, "model", "frozen", "untrained", UNTRAINED_SEED)
            )
    _require_distinct(entries)
    return tuple(entries), tuple(notices)


def offered(spec: ModelSpec | TextModelSpec, *, targets: str | None = None) -> dict[str, str]:
    """Say of every strategy why a model does not offer it; an empty reason: it does.

    Parameters
    ----------
    spec : ModelSpec or TextModelSpec
    targets : str, optional
        Layers for adapters, if the user names them.
    """
    reasons = {}
    for strategy, capability in _CAPABILITIES.items():
        reason = "" if capability in spec.capabilities else f"it does not declare {capability}"
        if strategy != "prompt" and not isinstance(spec, ModelSpec):
            reason = "it is a text model behind an interface: there is no network to train"
        elif strategy == "lora" and not reason and not targets and _lora(spec) is None:
            reason = "it does not say where adapters go (overrides: tuning: targets)"
        reasons[strategy] = reason
    return reasons


def _ungrouped(
    config: BenchmarkConfig, spec: ModelSpec | TextModelSpec, reasons: dict[str, str]
) -> dict[str, str]:
    """Say of every strategy why a model would offer it if samples were known, and does not."""
    if not isinstance(spec, ModelSpec) or spec.cell_batching != "group" or _knows_groups(config):
        return {}
    reason = "it reads the cells of a sample together, and no column of samples is named"
    return {strategy: reason for strategy in FINE_TUNING if not reasons[strategy]}


def _lora(spec: ModelSpec | TextModelSpec) -> object:
    return spec.lora if isinstance(spec, ModelSpec) else None


def _strategies(
    config: BenchmarkConfig, spec: ModelSpec | TextModelSpec
) -> tuple[tuple[str, ...], list[str]]:
    """Return the strategies of a model, and what to say of those that it does not offer."""
    own = config.overrides.get(spec.name)
    reasons = offered(spec, targets=own.tuning.targets if own else None)
    ungrouped = _ungrouped(config, spec, reasons)
    reasons |= ungrouped
    able = [strategy for strategy, reason in reasons.items() if not reason]
    can = f"it offers {', '.join(able)}" if able else "it offers none"
    if own is not None and own.strategies is not None:
        for strategy in own.strategies:
            if strategy in ungrouped:
                raise UsageError(
                    f"{spec.name} {strategy}: {ungrouped[strategy]}", hint=_NAME_SAMPLE
                )
            if reasons[strategy]:
                raise PluginError(
                    f"{spec.name} does not offer the strategy {strategy}: {reasons[strategy]}",
                    hint=can,
                )
        return own.strategies, []
    if config.strategies is None:
        return (("frozen",) if not reasons["frozen"] else ("prompt",)), []
    chosen = tuple(strategy for strategy in config.strategies if not reasons[strategy])
    if not chosen and set(config.strategies) & set(ungrouped):
        raise UsageError(f"{spec.name}: {next(iter(ungrouped.values()))}", hint=_NAME_SAMPLE)
    if not chosen:
        raise PluginError(
            f"{spec.name} offers none of the strategies {', '.join(config.strategies)}: "
            f"{reasons[config.strategies[0]]}",
            hint=f"{can}; leave it out, or name its strategies under `overrides`",
        )
    left_out = [strategy for strategy in config.strategies if reasons[strategy]]
    return chosen, [
        f"{spec.name} is left out of the strategy {strategy}: {reasons[strategy]}"
        for strategy in left_out
    ]


def _permuted(config: BenchmarkConfig, name: str) -> Entry:
    registry = get_registry()
    if name in registry.estimators:
        return Entry(f"{name}-permuted", name, "estimator", "estimator", "permuted", permuted=True)
    spec = registry.model(name)
    seed = config.randomize if _has_weights(config, spec) else None
    return Entry(f"{name}-permuted", name, "model", "frozen", "permuted", seed, permuted=True)


def _knows_groups(config: BenchmarkConfig) -> bool:
    """Whether cells are known to belong together, as some controls need it."""
    return config.group is not None or config.sample is not None


def _has_weights(config: BenchmarkConfig, spec: ModelSpec | TextModelSpec) -> bool:
    """Whether a model runs with published weights, whose tensors could be drawn anew."""
    return (
        isinstance(spec, ModelSpec)
        and spec.needs_weights
        and config.weights.get(spec.name) != "random"
        and Capability.EMBED in spec.capabilities
    )


def _is_untrained(config: BenchmarkConfig, spec: ModelSpec | TextModelSpec) -> bool:
    if not isinstance(spec, ModelSpec) or not spec.needs_weights:
        return False
    return config.weights.get(spec.name) == "random" or config.randomize is not None


def _kind(strategy: str) -> Kind:
    return "text" if strategy == "prompt" else "model"


def _require_distinct(entries: list[Entry]) -> None:
    keys = [(entry.name, entry.strategy) for entry in entries]
    twice = sorted({key[0] for key in keys if keys.count(key) > 1})
    if twice:
        raise UsageError(
            f"two rows of the results would be called {twice[0]}",
            hint="leave the control out of `controls`, or the model out of `models`",
        )
