"""Find plugins, keep broken ones from hurting the others, and look specs up by name.

Entry points of the group ``scdrugmap`` are loaded one by one, each with a plugin manager of its
own: an import error, a misspelt hook, a raising hook or a foreign contract number is recorded with
the distribution it came from, and everything else works on.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from typing import Any, Generic, TypeVar

import pluggy
from pydantic import ValidationError

from scdrugmap import hookspecs
from scdrugmap.errors import PluginError
from scdrugmap.specs import (
    SUPPORTED_CONTRACTS,
    CommandSpec,
    DatasetSpec,
    EstimatorSpec,
    ModelSpec,
    TextModelSpec,
)

GROUP = "scdrugmap"
CORE_DISTRIBUTION = "scdrugmap"
FILTER_VARIABLE = "SCDRUGMAP_PLUGINS"

AnySpec = TypeVar("AnySpec")

# hook -> (what its items are called, the spec classes it may return)
HOOKS: dict[str, tuple[str, tuple[type, ...]]] = {
    "scdrugmap_models": ("model", (ModelSpec, TextModelSpec)),
    "scdrugmap_estimators": ("estimator", (EstimatorSpec,)),
    "scdrugmap_datasets": ("dataset", (DatasetSpec,)),
    "scdrugmap_commands": ("command", (CommandSpec,)),
}


@dataclass(frozen=True)
class PluginRecord:
    """One entry point and what became of it."""

    name: str
    module: str
    distribution: str
    version: str
    status: str = "ok"  # ok, failed, disabled
    reasons: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    contracts: tuple[int, ...] = ()

    @property
    def built_in(self) -> bool:
        """Whether the plugin belongs to the core itself."""
        return self.distribution == CORE_DISTRIBUTION


@dataclass(frozen=True)
class Provided(Generic[AnySpec]):
    """A spec and the plugin it came from."""

    spec: AnySpec
    plugin: PluginRecord


@dataclass
class Registry:
    """All plugins of this installation; made by :func:`get_registry`."""

    plugins: list[PluginRecord] = field(default_factory=list)
    items: dict[str, dict[str, Provided[Any]]] = field(
        default_factory=lambda: {kind: {} for kind, _ in HOOKS.values()}
    )
    conflicts: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, ModelSpec | TextModelSpec]:
        """Models by name."""
        return {name: item.spec for name, item in self.items["model"].items()}

    @property
    def estimators(self) -> dict[str, EstimatorSpec]:
        """Estimators by name."""
        return {name: item.spec for name, item in self.items["estimator"].items()}

    @property
    def datasets(self) -> dict[str, DatasetSpec]:
        """Datasets by name."""
        return {name: item.spec for name, item in self.items["dataset"].items()}

    @property
    def commands(self) -> dict[str, CommandSpec]:
        """Extra commands by name."""
        return {name: item.spec for name, item in self.items["command"].items()}

    def model(self, name: str) -> ModelSpec:
        """Return the embedding model of that name.

        Raises
        ------
        PluginError
            It is unknown, clashes, or is a text model.
        """
        spec = self.provided("model", name).spec
        if not isinstance(spec, ModelSpec):
            raise PluginError(f"{name} is a text model: it answers about cells, it embeds none")
        return spec

    def estimator(self, name: str) -> EstimatorSpec:
        """Return the estimator of that name.

        Raises
        ------
        PluginError
            It is unknown or clashes.
        """
        spec: EstimatorSpec = self.provided("estimator", name).spec
        return spec

    def provided(self, kind: str, name: str) -> Provided[Any]:
        """Return a spec with its plugin; `kind` is model, estimator, dataset or command.

        Raises
        ------
        PluginError
            Nothing or more than one plugin provides that name.
        """
        if (kind, name) in self.conflicts:
            raise PluginError(
                f"{kind} {name} is offered by {' and '.join(self.conflicts[kind, name])}",
                hint=f"uninstall one, or choose plugins with {FILTER_VARIABLE}=a,b",
            )
        known = self.items[kind]
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        broken = [record.name for record in self.plugins if record.status == "failed"]
        hint = f"did you mean {near[0]}? " if near else ""
        hint += f"installed: {', '.join(sorted(known)) or 'none'}"
        if broken:
            hint += f"; broken plugins: {', '.join(broken)} (see `scdrugmap plugins list`)"
        raise PluginError(f"there is no {kind} named {name!r}", hint=hint)


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """Discover the installed plugins, once per process."""
    return discover(metadata.entry_points(group=GROUP), os.environ.get(FILTER_VARIABLE))


def discover(entry_points: Iterable[metadata.EntryPoint], only: str | None = None) -> Registry:
    """Load entry points into a registry.

    Parameters
    ----------
    entry_points : iterable of importlib.metadata.EntryPoint
    only : str, optional
        Comma-separated entry-point names to load; the core's own are always loaded. ``""`` loads
        nothing else.
    """
    wanted = None if only is None else {name.strip() for name in only.split(",") if name.strip()}
    registry = Registry()
    found: dict[tuple[str, str, str], metadata.EntryPoint] = {}
    for entry in entry_points:  # one distribution can stand twice on the path
        found.setdefault((_distribution(entry)[0], entry.name, entry.value), entry)
    offers: dict[tuple[str, str], list[Provided[Any]]] = {}
    for key in sorted(found, key=lambda key: (key[0] != CORE_DISTRIBUTION, key)):
        record, specs = _load(found[key], wanted)
        registry.plugins.append(record)
        for kind, spec in specs:
            offers.setdefault((kind, spec.name), []).append(Provided(spec, record))
    for (kind, name), offered in offers.items():
        _settle(registry, kind, name, offered)
    return registry


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "")


def _load(
    entry: metadata.EntryPoint, wanted: set[str] | None
) -> tuple[PluginRecord, list[tuple[str, Any]]]:
    """Load one entry point; whatever goes wrong ends in its record."""
    distribution, version = _distribution(entry)
    record = PluginRecord(entry.name, entry.value, distribution, version)
    if wanted is not None and entry.name not in wanted and not record.built_in:
        reason = f"not named in {FILTER_VARIABLE}"
        return replace(record, status="disabled", reasons=(reason,)), []
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(entry.load(), name=entry.name)
        manager.check_pending()
    except Exception as err:  # the border to foreign code: any failure is the plugin's
        return replace(record, status="failed", reasons=(_one_line(err),)), []
    specs: list[tuple[str, Any]] = []
    reasons: list[str] = []
    hooks: list[str] = []
    for hook, (kind, classes) in HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            hooks.append(hook)
            good, bad = _call(implementation.function, hook, classes)
            specs += [(kind, spec) for spec in good]
            reasons += bad
    if not hooks:
        reasons.append("implements no hook of scdrugmap")
    return (
        replace(
            record,
            status="failed" if reasons else "ok",
            reasons=tuple(reasons),
            hooks=tuple(hooks),
            provides=tuple(f"{kind}:{spec.name}" for kind, spec in specs),
            contracts=tuple(sorted({s.contract for _, s in specs if hasattr(s, "contract")})),
        ),
        specs,
    )


def _call(
    function: Callable[[], Any], hook: str, classes: tuple[type, ...]
) -> tuple[list[Any], list[str]]:
    """Call one hook; return the specs that can be used and why the others cannot."""
    try:
        returned = list(function())
    except Exception as err:  # the border to foreign code
        return [], [f"{hook} failed: {_one_line(err)}"]
    good: list[Any] = []
    reasons: list[str] = []
    for spec in returned:
        if not isinstance(spec, classes):
            names = " or ".join(cls.__name__ for cls in classes)
            reasons.append(f"{hook} returned a {type(spec).__name__}, not a {names}")
        elif getattr(spec, "contract", None) not in {None, *SUPPORTED_CONTRACTS}:
            speaks = ", ".join(map(str, sorted(SUPPORTED_CONTRACTS)))
            reasons.append(
                f"{spec.name} is written for contract {spec.contract}; this scdrugmap speaks "
                f"{speaks}: update {'scdrugmap' if spec.contract > max(SUPPORTED_CONTRACTS) else 'the plugin'}"
            )
        else:
            good.append(spec)
    return good, reasons


def _one_line(err: BaseException) -> str:
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{err.title}.{where}: {first['msg']}"
    return " ".join(f"{type(err).__name__}: {err}".split())


def _settle(registry: Registry, kind: str, name: str, offered: list[Provided[Any]]) -> None:
    """Give a name to its only provider; the core keeps its own names, else nobody gets it."""
    own = [item for item in offered if item.plugin.built_in]
    if len(offered) == 1 or own:
        registry.items[kind][name] = (own or offered)[0]
    if len(offered) == 1:
        return
    sources = tuple(f"{item.plugin.distribution} {item.plugin.version}" for item in offered)
    if not own:
        registry.conflicts[kind, name] = sources
    losers = {(item.plugin.distribution, item.plugin.name) for item in offered if item not in own}
    reason = f"{kind} {name} is offered by {' and '.join(sources)}"
    reason += "; the built-in one is used" if own else "; none of them is used"
    registry.plugins = [
        replace(record, status="failed", reasons=(*record.reasons, reason))
        if (record.distribution, record.name) in losers
        else record
        for record in registry.plugins
    ]
