"""What came out for the cells of a file, and everything that says how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.train.conformal import SETS
from scdrugmap.train.domain import EDGE, outside
from scdrugmap.train.samples import MIN_CELLS, far_notices, sample_lines, summarise

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.train.record import ConformalLevel, PredictorInfo
    from scdrugmap.train.scores import GeneCoverage


@dataclass(frozen=True)
class PredictionSets:
    """Labels that cannot be excluded, for each cell.

    Attributes
    ----------
    level : ConformalLevel
        With what the validation groups showed of it.
    promise : str
        What the sets guarantee, in one sentence.
    names : (n,) pandas.Categorical
        ``sensitive``, ``resistant``, ``both``, ``none``; ``""`` for cells without an answer.
    n_tested, n_tested_groups : int
        Test cells whose label the split gives, and their groups.
    tested : dict
        Share of them whose set holds the label, as
        :func:`~scdrugmap.train.conformal.coverage` gives it; empty without a split.
    """

    level: ConformalLevel
    promise: str
    names: pd.Categorical
    n_tested: int
    n_tested_groups: int
    tested: dict[str, float | None]

    def record(self) -> dict[str, Any]:
        """Return what is to be known of them, JSON-able."""
        return {
            **self.level.model_dump(mode="json"),
            "promise": self.promise,
            "sets": {name: int((self.names == name).sum()) for name in SETS},
            "test": {
                "n_cells": self.n_tested,
                "n_groups": self.n_tested_groups,
                **self.tested,
            }
            if self.tested
            else None,
        }

    def lines(self) -> list[str]:
        """Say what they are worth."""
        counts = self.record()["sets"]
        counted = ", ".join(f"{counts[name]:,} {name}" for name in SETS)
        lines = [f"conformal sets at level {self.level.level:g}: {counted}; {self.promise}"]
        if self.tested:
            lines.append(
                f"of {self.n_tested:,} test cells of {self.n_tested_groups:,} groups, "
                f"{self.tested['coverage']:.0%} have their label in the set (mean over groups)"
            )
        return lines


@dataclass(frozen=True)
class Predicted:
    """What a predictor says of the cells of a file.

    Attributes
    ----------
    table : pandas.DataFrame
        ``predictions.tsv``, one row per cell in file order; with the sets, if there are any.
        As small as it can be held: text that repeats is categorical, ``fold`` and ``seed`` are the
        smallest integers; :attr:`cells` is the same for users.
    info : PredictorInfo
        What predicted.
    domain : (n,) float32
        Share of the training cells that lie closer to their mean than the cell does; NaN for
        cells without an answer, and for predictors that have no embeddings.
    coverage : GeneCoverage, optional
        How many genes of the file are read.
    sets : PredictionSets, optional
        None: the predictor saw no validation cells.
    mismatches : tuple of str
        What is other here than in training and was allowed to be.
    notices : tuple of str
        What was said while predicting.
    min_cells : int
        Samples with fewer answered cells get no figure.
    answers : pandas.DataFrame, optional
        What a text model said of each cell
        (:data:`~scdrugmap.text.scorer.ANSWER_COLUMNS`).
    """

    table: pd.DataFrame
    info: PredictorInfo
    domain: np.ndarray
    coverage: GeneCoverage | None = None
    sets: PredictionSets | None = None
    mismatches: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    min_cells: int = MIN_CELLS
    answers: pd.DataFrame | None = None

    @cached_property
    def cells(self) -> pd.DataFrame:
        """``predictions.tsv`` with plain columns: text is object, ``fold`` and ``seed`` are int64.

        Made when it is first asked for, since it takes three times the memory of :attr:`table`.
        """
        return _plain(self.table)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample; see :func:`scdrugmap.train.samples.summarise`."""
        of_samples = self.info.level == "sample"
        return summarise(self.table, self.domain, min_cells=self.min_cells, of_samples=of_samples)

    @property
    def calls(self) -> np.ndarray:
        """``resistant``, ``sensitive``, ``abstain`` or ``invalid`` per cell ((n,) object str)."""
        table = self.table
        words = np.array(["resistant", "sensitive", "abstain", "invalid"], object)
        place = (table["p_sensitive"] >= table["threshold"]).to_numpy(np.int8)
        place[(table["state"] != "answered").to_numpy()] = 3
        place[(table["state"] == "abstained").to_numpy()] = 2
        return words[place]

    @property
    def details(self) -> pd.DataFrame:
        """What is known of each cell beside ``predictions.tsv``, which other tools rely on.

        Columns dataset, cell, sample, p_sensitive, call, state, reason, domain (above 0.99: further
        than 99 % of the training cells) and, if there are sets, prediction_set; of text models
        also flag, answer_mass, prompt_hash, served_by and raw_answer.
        """
        table = _plain(self.table[["dataset", "cell", "sample", "p_sensitive", "state", "reason"]])
        table.insert(4, "call", self.calls)
        table["domain"] = self.domain
        if self.sets is not None:
            table["prediction_set"] = self.sets.names.astype(object)
        if self.answers is not None:
            table[self.answers.columns.tolist()] = self.answers.to_numpy(object)
        return table

    def record(self) -> dict[str, Any]:
        """Return what decides how far to trust the predictions, JSON-able."""
        from scdrugmap import __version__

        state = self.table["state"]
        unanswered = self.table.loc[state != "answered", "reason"].astype(object).value_counts()
        info = self.info
        return {
            "scdrugmap": __version__,
            "predictor": info.model_dump(
                mode="json", exclude={"self_test", "reference", "conformal"}
            ),
            "cells": {
                "n": len(state),
                "n_answered": int((state == "answered").sum()),
                "reasons": {str(name): int(n) for name, n in sorted(unanswered.items())},
                "n_train": int((self.table["role"] == "train").sum()),
            },
            "genes": None
            if self.coverage is None
            else {
                "n_file": self.coverage.n_file,
                "n_read": self.coverage.n_read,
                "n_known": self.coverage.n_known,
                "n_training": info.genes.n_needed,
            },
            "domain": self._domain_record(),
            "conformal": None if self.sets is None else self.sets.record(),
            "mismatches": list(self.mismatches),
            "notices": [*self.notices, *far_notices(self.samples)],
        }

    def summary(self) -> dict[str, Any]:
        """Return :meth:`record` with the table of samples, JSON-able."""
        rows = self.samples.to_dict("records")
        return {
            **self.record(),
            "min_cells": self.min_cells,
            "samples": [
                {str(name): None if value != value else value for name, value in row.items()}
                for row in rows
            ],
        }

    def _domain_record(self) -> dict[str, Any] | None:
        known = np.isfinite(self.domain)
        if not known.any():
            return None
        far = outside(self.domain)
        return {
            "edge": EDGE,
            "n_outside": int(far.sum()),
            "share_outside": float(far[known].mean()),
            "share_expected": round(1 - EDGE, 2),
        }

    def lines(self) -> list[str]:
        """Return what a person should read, one line each."""
        lines = sample_lines(self.samples, self.min_cells)
        record = self.record()
        if record["cells"]["n_train"]:
            lines.append(
                f"{record['cells']['n_train']:,} of these cells were trained on: their "
                "predictions say nothing about how good the predictor is"
            )
        if self.coverage is not None and self.coverage.n_known:
            trained = self.info.genes.n_needed  # none where nothing is fitted, as with a question
            lines.append(
                f"{self.coverage.n_read:,} of the file's {self.coverage.n_file:,} genes are read"
                + (f" ({trained:,} in training)" if trained else "")
            )
        if record["domain"]:
            lines.append(
                f"{record['domain']['share_outside']:.1%} of the cells lie further from the "
                f"training cells than {EDGE:.0%} of those do ({1 - EDGE:.0%} expected)"
            )
        if self.info.calibration is None:
            lines.append("the probabilities are not calibrated: there were no validation cells")
        if self.sets is not None:
            lines += self.sets.lines()
        lines += [f"Notice: {text}" for text in far_notices(self.samples)]
        return lines


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with categories as text, and fold and seed as int64."""
    wanted: dict[str, Any] = {
        str(name): object for name in table if table[name].dtype.name == "category"
    }
    wanted.update((name, np.int64) for name in ("fold", "seed") if name in table)
    return table.astype(wanted)
