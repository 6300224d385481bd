"""Find plugins, keep broken ones from hurting the others, and look specs up by name.

Entry points of the group ``scdrugmap`` are loaded one by one, each with a plugin manager of its
own: an import error, a misspelt hook, a raising hook or a foreign contract number is recorded with
the distribution it came from, and everything else works on.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from typing import Any, Generic, TypeVar

import pluggy
from pydantic import ValidationError

from scdrugmap import hookspecs
from scdrugmap.errors import PluginError, ScDrugMapError
from scdrugmap.specs import (
    SUPPORTED_CONTRACTS,
    CommandSpec,
    DatasetSpec,
    EstimatorSpec,
    ModelSpec,
    TextModelSpec,
    foreign_contract,
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

    def plugin(self, name: str) -> list[PluginRecord]:
        """Return the plugins whose entry point has that name; several distributions may use one.

        Raises
        ------
        PluginError
            There is none.
        """
        records = [record for record in self.plugins if record.name == name]
        if not records:
            names = sorted({record.name for record in self.plugins})
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise PluginError(
                f"there is no plugin named {name!r}", hint=f"{hint}installed: {', '.join(names)}"
            )
        return records

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
    found: dict[tuple[str, str, str], metadata.EntryPoint] = {}
    for entry in entry_points:  # one distribution can stand twice on the path
        found.setdefault((_distribution(entry)[0], entry.name, entry.value), entry)
    loaded = [
        _load(found[key], wanted)
        for key in sorted(found, key=lambda key: (key[0] != CORE_DISTRIBUTION, key))
    ]
    registry = Registry(conflicts=_settle(loaded))
    for plugin in loaded:
        record = plugin.record()
        registry.plugins.append(record)
        for kind, spec in plugin.specs:
            registry.items[kind][spec.name] = Provided(spec, record)
    for name in sorted((wanted or set()) - {entry.name for entry in found.values()}):
        reason = f"named in {FILTER_VARIABLE}, but no such plugin is installed"
        registry.plugins.append(PluginRecord(name, "", "", "", "failed", (reason,)))
    return registry


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "unknown", ""
    try:
        known = entry.dist.metadata
        return (known.get_all("Name") or ["unknown"])[0], (known.get_all("Version") or [""])[0]
    except Exception:  # the border to foreign code: metadata may be missing or damaged
        return "unknown", ""


@dataclass
class _Loaded:
    """What loading one entry point gave, before names are settled among all."""

    base: PluginRecord
    status: str = "ok"
    reasons: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    contracts: set[int] = field(default_factory=set)
    specs: list[tuple[str, Any]] = field(default_factory=list)

    def record(self) -> PluginRecord:
        """Return the record that users see."""
        return replace(
            self.base,
            status="failed" if self.reasons and self.status == "ok" else self.status,
            reasons=tuple(self.reasons),
            hooks=tuple(self.hooks),
            provides=tuple(f"{kind}:{spec.name}" for kind, spec in self.specs),
            contracts=tuple(sorted(self.contracts)),
        )

    @property
    def source(self) -> str:
        """The distribution, as errors name it."""
        return f"{self.base.distribution} {self.base.version}".strip()


def _load(entry: metadata.EntryPoint, wanted: set[str] | None) -> _Loaded:
    """Load one entry point; whatever goes wrong ends among its reasons."""
    plugin = _Loaded(PluginRecord(entry.name, entry.value, *_distribution(entry)))
    if wanted is not None and entry.name not in wanted and not plugin.base.built_in:
        plugin.status, plugin.reasons = "disabled", [f"not named in {FILTER_VARIABLE}"]
        return plugin
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(entry.load(), name=entry.name)
        manager.check_pending()
    except (Exception, SystemExit) as err:  # the border to foreign code: any failure is its own
        plugin.reasons = [_one_line(err)]
        return plugin
    for hook, (kind, classes) in HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            plugin.hooks.append(hook)
            _call(plugin, implementation.function, hook, kind, classes)
    if not plugin.hooks:
        plugin.reasons.append("implements no hook of scdrugmap")
    return plugin


def _call(
    plugin: _Loaded,
    function: Callable[[], Any],
    hook: str,
    kind: str,
    classes: tuple[type, ...],
) -> None:
    """Call one hook; keep the specs that can be used and say why the others cannot."""
    try:
        returned = function()
        specs: list[Any] = [] if returned is None else list(returned)
    except (Exception, SystemExit) as err:  # the border to foreign code
        plugin.reasons.append(f"{hook} failed: {_one_line(err)}")
        return
    if returned is None:
        plugin.reasons.append(f"{hook} returned None, not a list")
    for spec in specs:
        contract = getattr(spec, "contract", None)
        if isinstance(contract, int):
            plugin.contracts.add(contract)
        fits = isinstance(spec, classes)
        if not fits:
            names = " or ".join(cls.__name__ for cls in classes)
            plugin.reasons.append(f"{hook} returned a {type(spec).__name__}, not a {names}")
        elif contract is not None and contract not in SUPPORTED_CONTRACTS:
            plugin.reasons.append(foreign_contract(spec.name, contract))
        elif kind == "command" and spec.name in _verbs():
            plugin.reasons.append(f"command {spec.name} is a verb of scdrugmap itself")
        elif (kind, spec.name) in {(kind, other.name) for kind, other in plugin.specs}:
            plugin.reasons.append(f"{hook} returned {kind} {spec.name} twice; the first is used")
        else:
            plugin.specs.append((kind, spec))


def _verbs() -> Collection[str]:
    from scdrugmap.cli import VERBS

    return VERBS


def _one_line(err: BaseException) -> str:
    if isinstance(err, ScDrugMapError):
        return err.message
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        where = ".".join(map(str, (err.title, *first["loc"])))
        more = f" (and {err.error_count() - 1} more)" if err.error_count() > 1 else ""
        return f"{where}: {first['msg']}{more}"
    return " ".join(f"{type(err).__name__}: {err}".split())


def _settle(loaded: list[_Loaded]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Give each name to its only provider; the core keeps its own names, else nobody gets it.

    Losers lose the spec and get a reason. Returns who offers each name that nobody gets.
    """
    offers: dict[tuple[str, str], list[_Loaded]] = {}
    for plugin in loaded:
        for kind, spec in plugin.specs:
            offers.setdefault((kind, spec.name), []).append(plugin)
    conflicts: dict[tuple[str, str], tuple[str, ...]] = {}
    for (kind, name), plugins in offers.items():
        if len(plugins) == 1:
            continue
        own = [plugin for plugin in plugins if plugin.base.built_in]
        sources = tuple(plugin.source for plugin in plugins)
        if not own:
            conflicts[kind, name] = sources
        reason = f"{kind} {name} is offered by {' and '.join(sources)}"
        reason += "; the built-in one is used" if own else "; none of them is used"
        for plugin in plugins:
            if plugin not in own[:1]:
                plugin.reasons.append(reason)
                plugin.specs = [
                    item for item in plugin.specs if (item[0], item[1].name) != (kind, name)
                ]
    return conflicts
