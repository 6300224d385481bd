"""What predictors a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scdrugmap.errors import DataError, UsageError
from scdrugmap.progress import say


def list_predictors(folder: Path) -> list[dict[str, Any]]:
    """Return what each predictor in a folder is, by name of its file.

    Zip files that are no predictors are named on stderr and left out.

    Returns
    -------
    list of dict
        file, name, strategy, fold, seed, split, cells, values and weights of each.

    Raises
    ------
    UsageError
        There is no such folder.
    """
    from scdrugmap.train.predictor import Predictor

    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="give the folder that holds predictors")
    found = []
    for path in sorted(folder.glob("*.zip")):
        try:
            info = Predictor.load(path).info
        except DataError as err:
            say(f"Notice: {err.message}")
            continue
        found.append(
            {
                "file": path.name,
                "name": info.name,
                "strategy": info.strategy,
                "fold": info.split.fold,
                "seed": info.seed,
                "split": info.split.split_id,
                "cells": info.training.n_cells,
                "values": info.values,
                "weights": info.weights.label if info.weights else "none",
            }
        )
    return found
