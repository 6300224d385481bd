"""What this machine and installation can do, and what could make it slow."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scdrugmap import __version__
from scdrugmap.progress import duration
from scdrugmap.run.store import Store, summary

_GB = 1e9
_LITTLE_DISK = 10 * _GB
_LITTLE_MEMORY = 4 * _GB
_CELLS = 10_000
_FEW_CELLS, _MANY_CELLS = 4, 400  # measured; many only if they take a second or so


@dataclass(frozen=True)
class Diagnosis:
    """Facts about a machine and an installation; sizes in bytes, rates per second, JSON-able."""

    scdrugmap: str
    versions: dict[str, str]
    n_processors: int
    n_threads: int
    memory_bytes: int
    devices: list[dict[str, Any]]
    bfloat16_on_cpu: bool
    matmul_flop_per_s: float
    cache: dict[str, Any]
    plugins: list[dict[str, Any]]
    weights: list[dict[str, Any]]
    hours: dict[str, float] = field(default_factory=dict)
    """Measured hours per 10,000 cells, by model; only of models that were asked for."""
    slow: tuple[str, ...] = ()
    """What could make work slow or stop it, one line each."""

    def to_dict(self) -> dict[str, Any]:
        """Return all facts."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the facts for people."""
        cache, versions = self.cache, self.versions
        rows = {
            "scdrugmap": f"{self.scdrugmap}, Python {versions['python']}, "
            f"torch {versions.get('torch', 'missing')}, {versions['platform']}",
            "processors": f"{self.n_processors}, of which torch uses {self.n_threads}; "
            f"bfloat16 matrix units: {'yes' if self.bfloat16_on_cpu else 'no'}",
            "matrix rate": f"{self.matmul_flop_per_s / 1e9:,.0f} GFLOP/s in float32",
            "memory": f"{self.memory_bytes / _GB:,.1f} GB",
            "devices": ", ".join(_device_text(device) for device in self.devices),
            "cache": cache["root"] or "none",
            "": f"{cache['free_bytes'] / _GB:,.1f} GB free, {cache['n_entries']:,} entries of "
            f"{cache['n_bytes'] / _GB:,.2f} GB",
        }
        lines = [
            *(f"{name:<12} {text}" for name, text in rows.items()),
            "plugins",
            *(_plugin_text(plugin) for plugin in self.plugins),
            "weights",
            *(_weights_text(row) for row in self.weights),
        ]
        lines += [
            f"{model} takes {duration(hours * 3600)} for {_CELLS:,} cells"
            for model, hours in self.hours.items()
        ]
        if not self.hours:
            lines.append("how long a model takes: scdrugmap doctor --model NAME --weights random")
        return [*lines, *(f"Note: {text}" for text in self.slow)]


def diagnose(
    requests: Sequence[Any] = (), *, store: Store | None = None, device: str = "auto"
) -> Diagnosis:
    """Look at devices, plugins, weights and cache, and measure the matrix-product rate.

    Parameters
    ----------
    requests : sequence of ModelRequest
        Models whose speed is measured on a few made-up cells (see
        :func:`scdrugmap.model.throughput.measure_throughput`).
    store : Store, optional
        Default: the user's cache.
    device : str

    Returns
    -------
    Diagnosis
    """
    import torch

    from scdrugmap.model.device import has_bfloat16_units, matmul_rate, resolve_device
    from scdrugmap.registry import get_registry
    from scdrugmap.run.provenance import versions
    from scdrugmap.specs import ModelSpec
    from scdrugmap.weights import state_of_weights

    store = Store(quiet=True) if store is None else store
    where = resolve_device(device)
    registry = get_registry()
    cache = _cache_facts(store)
    devices = _devices()
    plugins = [
        {
            "name": record.name,
            "distribution": record.distribution,
            "version": record.version,
            "status": record.status,
            "reasons": list(record.reasons),
        }
        for record in registry.plugins
    ]
    specs = [spec for spec in registry.models.values() if isinstance(spec, ModelSpec)]
    memory = _memory_bytes()
    n_processors = _processors()
    return Diagnosis(
        scdrugmap=__version__,
        versions=versions(),
        n_processors=n_processors,
        n_threads=torch.get_num_threads(),
        memory_bytes=memory,
        devices=devices,
        bfloat16_on_cpu=has_bfloat16_units(),
        matmul_flop_per_s=matmul_rate(where),
        cache=cache,
        plugins=plugins,
        weights=[row for spec in specs for row in state_of_weights(spec)],
        hours={request.name: _measured_hours(request, device) for request in requests},
        slow=tuple(_slow(devices, cache, memory, n_processors, torch.get_num_threads())),
    )


def _measured_hours(request: Any, device: str) -> float:
    from scdrugmap.model.throughput import measure_throughput

    loaded = request.load()
    few = measure_throughput(loaded, n_cells=_FEW_CELLS, device=device)
    if few.cells_per_s < _MANY_CELLS:
        return few.hours(_CELLS)
    return measure_throughput(loaded, n_cells=_MANY_CELLS, device=device).hours(_CELLS)


def _devices() -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = [
        {"name": "cpu", "title": processor_title(), "memory_bytes": None}
    ]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            title, memory = facts.name, facts.total_memory
            found.append({"name": f"cuda:{number}", "title": title, "memory_bytes": memory})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "title": "Apple GPU", "memory_bytes": None})
    return found


def processor_title() -> str:
    """Return the name of the processor where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _processors() -> int:
    """Return the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cache_facts(store: Store) -> dict[str, Any]:
    rows = summary(store.entries())
    there = store.root is not None and store.root.is_dir()
    return {
        "root": None if store.root is None else str(store.root),
        "writable": store.writable,
        "free_bytes": shutil.disk_usage(store.root).free if there and store.root else 0,
        "n_entries": sum(row["n_entries"] for row in rows),
        "n_bytes": sum(row["n_bytes"] for row in rows),
    }


def _slow(
    devices: Sequence[dict[str, Any]],
    cache: dict[str, Any],
    memory: int,
    n_processors: int,
    n_threads: int,
) -> list[str]:
    notes = []
    if len(devices) == 1:
        notes.append(
            "there is no GPU: large models take hours for some thousand cells; measure one with "
            "`scdrugmap throughput --model NAME`"
        )
    if n_threads < n_processors:
        notes.append(
            f"{n_threads} of {n_processors} processors are used: set OMP_NUM_THREADS={n_processors}"
        )
    if memory < _LITTLE_MEMORY:
        notes.append(f"memory of {memory / _GB:.1f} GB is little for large models")
    if not cache["writable"]:
        notes.append(
            "finished work is not kept: set SCDRUGMAP_CACHE to a folder that can be written to"
        )
    elif cache["free_bytes"] < _LITTLE_DISK:
        free = cache["free_bytes"] / _GB
        notes.append(f"{free:.1f} GB are free for the cache: clear it with `scdrugmap cache clear`")
    return notes


def _device_text(device: dict[str, Any]) -> str:
    memory = device["memory_bytes"]
    size = f", {memory / _GB:.0f} GB" if memory else ""
    return f"{device['name']} ({device['title']}{size})"


def _plugin_text(plugin: dict[str, Any]) -> str:
    title = f"{plugin['distribution']} {plugin['version']}".strip()
    reasons = f": {'; '.join(plugin['reasons'])}" if plugin["reasons"] else ""
    return f"  {plugin['name']:<16} {plugin['status']:<9} {title}{reasons}"


def _weights_text(row: dict[str, Any]) -> str:
    return f"  {row['model']:<16} {row['name']}: {row['found'] or 'not here'}"
