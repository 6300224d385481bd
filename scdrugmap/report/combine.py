"""Put several runs side by side, and rank only what was measured on the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.report.run_tables import RunTables, read_tables
from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = tuple[str, str]
"""Model and strategy."""


def combine_runs(folders: Sequence[Path]) -> RunTables:
    """Read several runs as one whose models are those of all.

    A protocol is ranked if all runs have the same manifest of it; of the others it is said how they
    differ. A model that two runs have with the same numbers stands there once; one with other
    numbers, or of other weights or options, is named after its run.

    Parameters
    ----------
    folders : sequence of Path
        At least two run folders.

    Returns
    -------
    RunTables

    Raises
    ------
    UsageError
        A folder is given twice, or holds no finished run.
    DataError
        No manifest is the same in all runs, or a table is damaged.
    """
    places = [Path(folder).resolve() for folder in folders]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise UsageError(f"the run {twice.name} is given twice", hint="name each run once")
    found = [read_tables(Path(folder)) for folder in folders]
    runs = dict(zip(_names([tables.run.name for tables in found]), found, strict=True))
    protocols = _protocols(runs)
    ranked = [item.name for item in protocols if item.status == "evaluated"]
    if not ranked:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in protocols)
        raise DataError(
            f"{', '.join(runs)} cannot be ranked: no manifest is the same in all runs ({reasons})",
            hint="run them on the same files with the same groups, folds, max_cells and split_seed",
        )
    names = _model_names(runs, ranked)
    first = next(iter(runs.values()))
    models = tuple(
        _renamed(model, names[run][model.name, model.strategy])
        for run, tables in runs.items()
        for model in tables.run.models
        if (model.name, model.strategy) in names[run]
    )
    metrics = pd.concat(
        [
            _kept(tables.metrics[tables.metrics["protocol"].isin(ranked)], names[run])
            for run, tables in runs.items()
        ],
        ignore_index=True,
    )
    predictions = {
        protocol: pd.concat(
            [_kept(tables.predictions[protocol], names[run]) for run, tables in runs.items()],
            ignore_index=True,
        )
        for protocol in ranked
    }
    record = RunRecord(
        name=" · ".join(runs),
        config=_shared({run: tables.run.config for run, tables in runs.items()}),
        config_id=hash_json([tables.run.config_id for tables in found]),
        datasets=first.run.datasets,
        models=models,
        protocols=tuple(protocols),
        notices=tuple(f"{run}: {text}" for run, t in runs.items() for text in t.run.notices),
        cell_map=first.run.cell_map,
        provenance=_shared({run: tables.run.provenance for run, tables in runs.items()}),
    )
    splits = {protocol: first.splits[protocol] for protocol in ranked}
    from scdrugmap.report.compared import compare_run

    return RunTables(
        record,
        metrics,
        predictions,
        splits,
        first.cell_map,
        compare_run(record, metrics, predictions, splits),
        warnings=(
            *(f"{p.name} is not ranked: {p.reason}." for p in protocols if p.status != "evaluated"),
            *_other_versions(runs),
        ),
    )


def _names(names: list[str]) -> list[str]:
    """Number the runs whose folders have one name."""
    found: list[str] = []
    for name in names:
        n = names[: len(found)].count(name)
        found.append(name if names.count(name) == 1 else f"{name} ({n + 1})")
    return found


def _protocols(runs: Mapping[str, RunTables]) -> list[ProtocolRecord]:
    """Return every protocol once; refused unless all runs have the same manifest of it."""
    by_name: dict[str, dict[str, ProtocolRecord]] = {}
    for run, tables in runs.items():
        for item in tables.run.protocols:
            by_name.setdefault(item.name, {})[run] = item
    protocols = []
    for name, items in by_name.items():
        first = next(iter(items.values()))
        reason = _why_not(name, items, runs)
        changes: dict[str, Any] = {
            "notices": tuple(dict.fromkeys(text for one in items.values() for text in one.notices)),
            "deviations": tuple(
                dict.fromkeys(text for one in items.values() for text in one.deviations)
            ),
            "heads": {key: head for one in items.values() for key, head in one.heads.items()},
        }
        if reason:
            changes |= {"status": "refused", "reason": reason, "split_id": "", "hint": ""}
        protocols.append(first.model_copy(update=changes))
    return protocols


def _why_not(name: str, items: dict[str, ProtocolRecord], runs: Mapping[str, RunTables]) -> str:
    missing = [run for run in runs if run not in items]
    if missing:
        return f"{', '.join(missing)} did not run it"
    refused = [run for run, item in items.items() if item.status == "refused"]
    if refused:
        return f"it was refused in {', '.join(refused)} ({items[refused[0]].reason})"
    if len({item.split_id for item in items.values()}) == 1:
        return ""
    said = []
    for run, item in items.items():
        split = runs[run].splits[name]
        cells = split[["dataset", "cell"]].drop_duplicates().shape[0]
        groups = split["group"].nunique()
        said.append(
            f"{run} has {item.split_id} ({cells:,} cells, {groups} groups, {item.n_folds} folds)"
        )
    return f"the manifests differ: {'; '.join(said)}"


def _model_names(runs: Mapping[str, RunTables], ranked: list[str]) -> dict[str, dict[Key, str]]:
    """Return what each model of each run is called; one that is there already is left out."""
    holders: dict[Key, list[tuple[str, ModelRecord]]] = {}
    for run, tables in runs.items():
        for model in tables.run.models:
            holders.setdefault((model.name, model.strategy), []).append((run, model))
    names: dict[str, dict[Key, str]] = {run: {} for run in runs}
    for key, held in holders.items():
        distinct: list[tuple[str, ModelRecord]] = []
        for run, model in held:
            if not any(
                model.identity == other.identity
                and _numbers(runs[run], key, ranked) == _numbers(runs[there], key, ranked)
                for there, other in distinct
            ):
                distinct.append((run, model))
        for run, _ in distinct:
            names[run][key] = key[0] if len(distinct) == 1 else f"{key[0]} @{run}"
    return names


def _numbers(tables: RunTables, key: Key, ranked: list[str]) -> str:
    """Return the numbers of a model as text: equal for equal predictions."""
    rows = tables.metrics
    rows = rows[(rows["model"] == key[0]) & (rows["strategy"] == key[1])]
    rows = rows[rows["protocol"].isin(ranked)]
    columns = ["protocol", "dataset", "fold", "seed", "level", "metric", "threshold", "value"]
    return str(rows[columns].sort_values(columns[:-1]).to_csv(index=False))


def _renamed(model: ModelRecord, name: str) -> ModelRecord:
    # what a model is made of keeps its name, whatever the row is called
    return model.model_copy(update={"name": name, "model": model.model or model.name})


def _kept(table: pd.DataFrame, names: dict[Key, str]) -> pd.DataFrame:
    """Return the rows of the models that are kept, under the names they have now."""
    keys = list(zip(table["model"], table["strategy"], strict=True))
    kept = pd.Series([key in names for key in keys], index=table.index, dtype=bool)
    return table[kept].assign(model=[names[key] for key in keys if key in names])


def _shared(parts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what all have in common, and each as it is under ``runs``."""
    first, *others = parts.values()
    common = {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }
    return {**common, "runs": dict(parts)}


def _other_versions(runs: Mapping[str, RunTables]) -> list[str]:
    """Say which software differs between the runs."""
    found: dict[str, dict[str, str]] = {}
    for run, tables in runs.items():
        known = tables.run.provenance
        versions = {"scdrugmap": known.get("scdrugmap", ""), **known.get("versions", {})}
        for package, version in versions.items():
            found.setdefault(package, {})[run] = str(version)
    return [
        f"The runs were made with different {package}: "
        + ", ".join(f"{run} {version}" for run, version in of.items())
        + "."
        for package, of in found.items()
        if len(set(of.values())) > 1
    ]
