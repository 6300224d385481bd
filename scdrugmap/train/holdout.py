"""Cells that tell when to stop: whole groups that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scdrugmap.train.gather import Chosen


def hold_out_groups(
    chosen: Sequence[Chosen], share: float, seed: int
) -> tuple[list[Chosen], list[Chosen]]:
    """Set whole groups of both labels aside.

    Parameters
    ----------
    chosen : sequence of Chosen
        Training cells.
    share : float
        Of the groups of each label; at least one group.
    seed : int

    Returns
    -------
    trained, held_out : list of Chosen
        `held_out` is empty where a label would be left without a group on one of the sides.
    """
    table = pd.concat([part.table[["group", "label"]] for part in chosen])
    labels_of = table.groupby("group")["label"].agg(lambda labels: "+".join(sorted(set(labels))))
    random = np.random.default_rng(seed)
    held: set[str] = set()
    for _, groups in sorted(labels_of.groupby(labels_of).groups.items()):
        names = np.array(sorted(groups), object)
        n = min(max(round(share * len(names)), 1), len(names) - 1)  # 0 of a single group
        held |= set(random.permutation(names)[:n])
    aside = table["group"].isin(held)
    if any(table.loc[side, "label"].nunique() < 2 for side in (aside, ~aside)):
        return list(chosen), []
    masks = [np.asarray(part.table["group"].isin(held)) for part in chosen]
    parts = list(zip(chosen, masks, strict=True))
    return (
        [part.take(~mask) for part, mask in parts if not mask.all()],
        [part.take(mask) for part, mask in parts if mask.any()],
    )
