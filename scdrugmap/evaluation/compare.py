"""Compare models pair by pair on the same test cells: how large is the difference, and is it chance?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.errors import UsageError
from scdrugmap.evaluation.answers import (
    RUN,
    THRESHOLD,
    as_test_cells,
    beside_truth,
    join_answers,
)
from scdrugmap.evaluation.intervals import percentile_interval
from scdrugmap.evaluation.metrics import METRICS, THRESHOLDED
from scdrugmap.evaluation.paired import (
    Test,
    effect_size,
    holm,
    nadeau_bengio,
    sign_flip,
    wilcoxon,
)
from scdrugmap.evaluation.protocols import PROTOCOLS
from scdrugmap.evaluation.scores import join_notes
from scdrugmap.evaluation.standing import (
    FIXED,
    Standing,
    pair_up,
    rank_gap,
    swap_calls,
    take_standing,
)
from scdrugmap.evaluation.tables import (
    COMPARISON_COLUMNS,
    protocol_of,
    read_predictions,
    read_splits,
)

COMPARED = ("auroc", "macro_f1", "mcc", "brier")
"""Metrics that are compared if nobody says otherwise."""
PERMUTATIONS = 10_000
MIN_SEEDS = 3
"""Fewest trainings of anything that depends on a seed."""

_LOWER_IS_BETTER = ("brier", "ece")
_FAMILY = ["level", "metric", "test"]

Name = tuple[str, str]
"""Model and strategy."""


@dataclass(frozen=True)
class _Trained:
    """The test cells of one model in each of its trainings, cells in the order of the split."""

    name: Name
    seeds: dict[int, pd.DataFrame]
    notes: tuple[str, ...]

    def rows(self) -> pd.Index:
        """Return the rows of the split that every training was tested on."""
        tables = list(self.seeds.values())
        rows = tables[0].index
        for table in tables[1:]:
            rows = rows.intersection(table.index)
        return rows


def compare_models(
    predictions: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    reference: str | None = None,
    metrics: Sequence[str] = COMPARED,
    draws: int = 2000,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare models on the same test cells, with intervals, tests and sizes of effect.

    Under a sound protocol predictions change places within groups (levels ``cell`` and ``sample``)
    or datasets (``dataset_macro``), and signed ranks are compared. Under ``paper`` only the
    corrected t-test over folds is given. p-values are corrected by Holm over all pairs of models.

    Parameters
    ----------
    predictions : DataFrame
        Columns of ``predictions.tsv``, all made on `splits`; several seeds of a model are averaged.
    splits : DataFrame
        Columns of ``splits.tsv``.
    reference : str, optional
        Compare every other model with this one, ``MODEL`` or ``MODEL:STRATEGY``; default: all
        pairs.
    metrics : sequence of str
        Of :data:`~scdrugmap.evaluation.metrics.METRICS`, calls at 0.5.
    draws : int
        Of the bootstrap; 0 for no intervals.
    permutations : int
        Patterns of exchange where there are more than 15 units.
    seed : int

    Returns
    -------
    DataFrame
        Columns of ``comparisons.tsv``; no row if there is one model. ``attrs["notices"]`` (tuple
        of str) names pairs without a test cell in common.

    Raises
    ------
    UsageError
        The reference or a metric does not exist, or a number cannot be.
    DataError
        As :func:`~scdrugmap.evaluation.evaluate.evaluate`.
    """
    strange = [metric for metric in metrics if metric not in METRICS]
    if strange:
        raise UsageError(
            f"there is no metric {strange[0]!r}", hint=f"there are: {', '.join(METRICS)}"
        )
    if draws < 0 or seed < 0 or permutations < 1:
        raise UsageError(
            f"draws ({draws}) and seed ({seed}) must not be negative, permutations "
            f"({permutations}) must be positive"
        )
    scored, splits, _ = join_answers(predictions, splits)
    models = _trained(scored, splits)
    pairs = _pairs([model.name for model in models], reference)
    by_name = {model.name: model for model in models}
    protocol = protocol_of(splits)
    known = PROTOCOLS.get(protocol)
    paper = known is not None and known.family == "paper"
    measure = _Measure(metrics, draws, seed, cells_only=paper)  # of folds, only cells are tested
    share = _test_share(splits)
    rows: list[dict[str, Any]] = []
    apart: list[str] = []
    for first, second in pairs:
        one, other = by_name[first], by_name[second]
        cells = one.rows().intersection(other.rows())
        if cells.empty:
            apart.append(f"{':'.join(first)} and {':'.join(second)} have no test cell in common")
            continue
        mine, theirs = (measure.standings(model, cells) for model in (one, other))
        notes = _notes(one, other, cells)
        both = {
            "protocol": protocol,
            "model_a": first[0],
            "strategy_a": first[1],
            "model_b": second[0],
            "strategy_b": second[1],
        }
        for metric in metrics:
            for row in _compare(mine, theirs, metric):
                shared = {**both, **row, "note": notes}
                tests = (
                    _fold_tests(mine, theirs, row, metric, share)
                    if paper
                    else _unit_tests(mine, theirs, row, metric, permutations, seed)
                )
                for found in tests:
                    note = join_notes(row["note"], found.pop("note"), shared["note"])
                    rows.append({**shared, **found, "note": note})
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    for _, family in table.groupby(_FAMILY, sort=False):
        table.loc[family.index, "p_holm"] = holm(family["p_value"].tolist())
        table.loc[family.index, "n_comparisons"] = int(family["p_value"].notna().sum())
    table = table.astype({"n_comparisons": np.int64})
    table.attrs["notices"] = tuple(apart)
    return table


def compare_files(
    predictions: Sequence[Path],
    splits: Path,
    *,
    reference: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the models in one or more files; see :func:`compare_models`."""
    tables = [read_predictions(path) for path in predictions]
    joined = pd.concat(tables, ignore_index=True)
    manifest = read_splits(splits)
    return compare_models(joined, manifest, reference=reference, draws=draws, seed=seed)


class _Measure:
    """Measure trainings once for all pairs with the same test cells."""

    def __init__(self, metrics: Sequence[str], draws: int, seed: int, *, cells_only: bool) -> None:
        self._metrics, self._draws, self._seed = metrics, draws, seed
        self._cells_only = cells_only
        self._known: dict[tuple[Name, bytes], list[Standing]] = {}

    def standings(self, model: _Trained, rows: pd.Index) -> list[Standing]:
        """Return one standing for each seed of a model."""
        key = (model.name, rows.to_numpy(np.int64).tobytes())
        if key not in self._known:
            self._known[key] = [
                self._standing(table.loc[rows]) for _, table in sorted(model.seeds.items())
            ]
        return self._known[key]

    def _standing(self, cells: pd.DataFrame) -> Standing:
        test, _ = as_test_cells(cells)
        fold = cells["fold"].to_numpy(np.int64)
        return take_standing(
            test,
            fold,
            self._metrics,
            draws=self._draws,
            seed=self._seed,
            cells_only=self._cells_only,
        )


def _trained(scored: pd.DataFrame, splits: pd.DataFrame) -> list[_Trained]:
    seeds: dict[Name, dict[int, pd.DataFrame]] = {}
    notes: dict[Name, list[str]] = {}
    for _, part in scored.groupby(RUN, sort=True):
        first = part.iloc[0]
        cells, note = beside_truth(part, splits)
        if cells.empty:
            continue
        name = (str(first["model"]), str(first["strategy"]))
        seeds.setdefault(name, {})[int(first["seed"])] = cells
        notes.setdefault(name, []).append(note)
    return [
        _Trained(name, tables, tuple(dict.fromkeys(note for note in notes[name] if note)))
        for name, tables in seeds.items()
    ]


def _pairs(names: list[Name], reference: str | None) -> list[tuple[Name, Name]]:
    if reference is None:
        return list(combinations(names, 2))
    model, _, strategy = reference.partition(":")
    found = [name for name in names if name[0] == model and strategy in ("", name[1])]
    if len(found) != 1:
        there = ", ".join(":".join(name) for name in names)
        kind = "is ambiguous" if found else "was not predicted"
        raise UsageError(f"the reference {reference!r} {kind}", hint=f"there are: {there}")
    return [(name, found[0]) for name in names if name != found[0]]


def _notes(one: _Trained, other: _Trained, cells: pd.Index) -> str:
    most = max(len(one.rows()), len(other.rows()))
    said = [f"{':'.join(model.name)}: {note}" for model in (one, other) for note in model.notes]
    if len(cells) < most:
        said.append(f"compared on the {len(cells):,} predictions that both have")
    if max(len(one.seeds), len(other.seeds)) < MIN_SEEDS:
        said.append(f"fewer than {MIN_SEEDS} seeds: the spread over trainings is unknown")
    return join_notes(*said)


def _compare(one: list[Standing], other: list[Standing], metric: str) -> Iterator[dict[str, Any]]:
    """Give the figures of both models and the interval of their difference at each level."""
    key = (metric, FIXED if metric in THRESHOLDED else "")
    for level in one[0].levels:
        found = [[standing.levels[level] for standing in model] for model in (one, other)]
        if any(key not in item.values for model in found for item in model):
            continue
        values = [np.array([item.values[key] for item in model]) for model in found]
        first = found[0][0]
        low, high, note = np.nan, np.nan, first.note
        if all(key in item.drawn for model in found for item in model):
            drawn = [np.mean([item.drawn[key] for item in model], axis=0) for model in found]
            low, high, said = percentile_interval(drawn[0] - drawn[1])
            note = join_notes(note, said)
        yield {
            "level": level,
            "metric": metric,
            "threshold": THRESHOLD if metric in THRESHOLDED else np.nan,
            "value_a": values[0].mean(),
            "value_b": values[1].mean(),
            "difference": values[0].mean() - values[1].mean(),
            "ci_low": low,
            "ci_high": high,
            "seed_sd_a": _spread(values[0]),
            "seed_sd_b": _spread(values[1]),
            "n_seeds_a": len(values[0]),
            "n_seeds_b": len(values[1]),
            "n": first.size[0],
            "n_groups": first.size[2],
            "note": note,
        }


def _unit_tests(
    one: list[Standing],
    other: list[Standing],
    row: dict[str, Any],
    metric: str,
    permutations: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Give the tests over groups, or over datasets where these have one vote each."""
    level, pairs = row["level"], pair_up(one, other)
    unit, ranks = "group", True
    if level == "dataset_macro":
        unit = "dataset"
        gaps = np.mean([a.datasets[metric] - b.datasets[metric] for a, b in pairs], axis=0)
        gaps = gaps[np.isfinite(gaps)]
        shares = gaps / max(len(gaps), 1)
    elif metric in THRESHOLDED:
        ranks = False  # a group has no such metric of its own; the effect is that on right calls
        gaps = np.mean([a.accuracy - b.accuracy for a, b in pairs], axis=0)
        shares = None
    elif metric == "brier" and level == "cell":
        shares = np.mean([a.error - b.error for a, b in pairs], axis=0)
        gaps = shares / one[0].n_cells
    elif metric == "auroc":
        n_groups = len(one[0].error)
        found = [rank_gap(a.votes[level], b.votes[level], n_groups) for a, b in pairs]
        shares, gaps = (np.mean(part, axis=0) for part in zip(*found, strict=True))
        shares, gaps = shares[np.isfinite(gaps)], gaps[np.isfinite(gaps)]
    else:
        nothing = Test(np.nan, f"no test: {metric} is no sum over groups")
        yield _tested("sign-flip", unit, nothing, np.zeros(0), metric)
        return

    def difference(signs: np.ndarray) -> np.ndarray:
        if shares is None:
            return swap_calls(one, other, metric, signs)
        return np.asarray(signs @ shares)

    if np.isnan(row["difference"]):
        nothing = Test(np.nan, "no test: not evaluable")
        yield _tested("sign-flip", unit, nothing, gaps, metric)
        return
    flipped = sign_flip(difference, len(gaps), permutations=permutations, seed=seed)
    yield _tested("sign-flip", unit, flipped, gaps, metric)
    if ranks:
        yield _tested("wilcoxon", unit, wilcoxon(gaps), gaps, metric)


def _fold_tests(
    one: list[Standing], other: list[Standing], row: dict[str, Any], metric: str, share: float
) -> Iterator[dict[str, Any]]:
    if row["level"] != "cell":
        return
    gaps = np.mean([a.folds[metric] - b.folds[metric] for a, b in pair_up(one, other)], axis=0)
    yield _tested("nadeau-bengio", "fold", nadeau_bengio(gaps, share), gaps, metric)


def _tested(name: str, unit: str, test: Test, gaps: np.ndarray, metric: str) -> dict[str, Any]:
    better = -gaps if metric in _LOWER_IS_BETTER else gaps
    known = better[np.isfinite(better)]
    wins = float(((known > 0) + (known == 0) / 2).mean()) if len(known) else np.nan
    return {
        "test": name,
        "unit": unit,
        "n_units": len(known),
        "p_value": test.p_value,
        "effect_size": effect_size(gaps),
        "share_better": wins,
        "note": test.note,
    }


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _test_share(splits: pd.DataFrame) -> float:
    """Return test cells over training cells, on average over folds."""
    test, train = (
        splits.loc[splits["role"] == role, "fold"].value_counts() for role in ("test", "train")
    )
    return float((test / train).mean())
