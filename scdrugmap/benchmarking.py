"""``scdrugmap.api.evaluate`` and ``benchmark``: what these verbs do, for tables and for files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.results import Predictions
    from scdrugmap.run.execute import Run


def evaluate(
    predictions: Predictions | pd.DataFrame | str | Path | Sequence[str | Path],
    splits: pd.DataFrame | str | Path,
    *,
    in_sample: bool = False,
    exclude_invalid: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions on the test cells of a split, with intervals over groups.

    Parameters
    ----------
    predictions : Predictions, DataFrame, path or several paths
        ``predictions.tsv``.
    splits : DataFrame or path
        ``splits.tsv``.
    in_sample : bool
        Score training cells too, and say so in every row.
    exclude_invalid : bool
        Leave cells without an answer out instead of counting them as wrong.
    draws : int
        Draws of the bootstrap; 0: no intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        ``metrics.tsv``: one row per model, fold, level, metric and threshold.

    Raises
    ------
    UsageError
        A file does not exist.
    DataError
        A table is damaged, or no test cell has a prediction.
    """
    import pandas as pd

    from scdrugmap.evaluation.evaluate import evaluate as score
    from scdrugmap.evaluation.tables import read_predictions, read_splits
    from scdrugmap.results import Predictions as Result

    if isinstance(predictions, Result):
        table = predictions.cells
    elif isinstance(predictions, pd.DataFrame):
        table = predictions
    else:
        paths = [predictions] if isinstance(predictions, str | Path) else list(predictions)
        parts = [read_predictions(Path(path)) for path in paths]
        table = pd.concat(parts, ignore_index=True)
    return score(
        table,
        read_splits(Path(splits)) if isinstance(splits, str | Path) else splits,
        in_sample=in_sample,
        exclude_invalid=exclude_invalid,
        draws=draws,
        seed=seed,
    )


def benchmark(
    config: str | Path | BenchmarkConfig | None = None,
    *,
    output: str | Path,
    executor: str = "local",
    overwrite: bool = False,
    quiet: bool = True,
    **fields: Any,
) -> Run:
    """Run models and baselines under one or more protocols, and report.

    Parameters
    ----------
    config : path or BenchmarkConfig, optional
        YAML file, or a record; without it the fields are given by name.
    output : str or Path
        Folder of the run; one that was stopped goes on.
    executor : str
        ``local`` or ``processes:N``.
    overwrite : bool
        Begin anew, whatever the folder holds.
    quiet : bool
        No progress and no notices.
    **fields
        Fields of :class:`~scdrugmap.config.BenchmarkConfig` (``data=...``, ``label=...``); they win
        over `config`.

    Returns
    -------
    Run
        With ``metrics``, ``folder``, ``record`` and ``report``.

    Raises
    ------
    ScDrugMapError
        As :func:`scdrugmap.run.execute.run_benchmark`.
    """
    from scdrugmap.config import BenchmarkConfig as Config
    from scdrugmap.config import make_config, read_config
    from scdrugmap.run.execute import run_benchmark

    if config is None:
        chosen = make_config(fields)
    else:
        start = config if isinstance(config, Config) else read_config(Path(config))
        chosen = make_config({**start.model_dump(exclude_unset=True), **fields})
    return run_benchmark(chosen, Path(output), executor=executor, overwrite=overwrite, quiet=quiet)
