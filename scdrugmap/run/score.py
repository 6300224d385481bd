"""Score the finished jobs of a benchmark: every row on the labels that it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.progress import Progress, say

if TYPE_CHECKING:
    from scdrugmap.run.journal import RunFolder
    from scdrugmap.run.plan import Job, Plan

_ROW = ["model", "strategy"]


def score_jobs(
    plan: Plan, keys: dict[Job, str], folder: RunFolder, *, quiet: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Join the finished jobs to tables of predictions, write these, and score them.

    Parameters
    ----------
    plan : Plan
    keys : dict of Job to str
        Names of the finished steps.
    folder : RunFolder
    quiet : bool

    Returns
    -------
    metrics : DataFrame
    notices : list of str
        What was left out.
    """
    from scdrugmap.evaluation.tables import write_predictions

    tables, notices = [], []
    of_split: dict[tuple[str, int | None], list[Job]] = {}
    for job in plan.jobs:
        of_split.setdefault((job.protocol, job.permutation), []).append(job)
    with Progress("evaluate", len(of_split), "splits", quiet=quiet) as progress:
        for (protocol, permutation), jobs in of_split.items():
            found = [folder.finished(keys[job]) for job in jobs]
            parts = [part for part in found if part is not None]
            if parts:
                predictions = _in_order(pd.concat(parts, ignore_index=True))
                path = folder.table("predictions", protocol, permutation)
                write_predictions(predictions, path)
                scored = score(predictions, plan.split_of(jobs[0]).table, plan.config.draws)
                notices += [f"{protocol}: {text}" for text in scored.attrs["notices"]]
                tables.append(scored)
            progress.advance(1)
    for text in notices:
        say(f"Note: {text}", quiet=quiet)
    return pd.concat(tables, ignore_index=True), notices


def score(predictions: pd.DataFrame, splits: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Score predictions; seeds that gave the same ones are scored once.

    Many baselines, and a logistic head on embeddings, do not depend on the seed. The rows are those
    of :func:`scdrugmap.evaluation.evaluate.evaluate`, which scores every seed.
    """
    from scdrugmap.evaluation.evaluate import evaluate

    same = _same_seeds(predictions)
    scored = evaluate(
        predictions[predictions.index.isin(_kept(predictions, same))], splits, draws=draws
    )
    copies = [
        scored[(scored[_ROW] == key[:2]).all(axis=1) & (scored["seed"] == like)].assign(seed=key[2])
        for key, like in same.items()
    ]
    order = [*_ROW, "seed"]
    joined = pd.concat([scored, *copies], ignore_index=True)
    joined = joined.sort_values(order, kind="stable", ignore_index=True)
    joined.attrs["notices"] = scored.attrs["notices"]
    return joined


def _same_seeds(predictions: pd.DataFrame) -> dict[tuple[str, str, int], int]:
    """Return the seeds that predict what an earlier one of their row does, and that one."""
    found: dict[tuple[str, str, int], int] = {}
    for (model, strategy), rows in predictions.groupby(_ROW, sort=False):
        seen: list[tuple[int, pd.DataFrame]] = []
        for seed in sorted(set(rows["seed"].tolist())):
            part = rows[rows["seed"] == seed]
            content = part.drop(columns="seed").reset_index(drop=True)
            like = next((one for one, other in seen if other.equals(content)), None)
            if like is None:
                seen.append((seed, content))
            else:
                found[str(model), str(strategy), seed] = like
    return found


def _kept(predictions: pd.DataFrame, same: dict[tuple[str, str, int], int]) -> pd.Index:
    keys = pd.MultiIndex.from_frame(predictions[[*_ROW, "seed"]])
    return predictions.index[~keys.isin(list(same))]


def _in_order(predictions: pd.DataFrame) -> pd.DataFrame:
    """Sort predictions, so that the order in which jobs ended leaves no trace."""
    keys = ["model", "strategy", "seed", "fold", "dataset", "cell"]
    return predictions.sort_values(keys, kind="stable", ignore_index=True)
