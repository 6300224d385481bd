"""The strategy ``prompt``: a text model is asked about every cell; nothing is fitted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError
from scdrugmap.text.contract import P_CENSORED, P_HARD, Answer, Asking, Example, Question
from scdrugmap.text.examples import EXAMPLES_FILE, KeptExample, dump_examples, sample_hash
from scdrugmap.text.questions import GeneLists, ask_about
from scdrugmap.train.scores import (
    FEW_COUNTS,
    NO_KNOWN_GENES,
    GeneCoverage,
    Scores,
    Trial,
    empty_cells,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.text.load import LoadedText

ANSWER_COLUMNS = ("flag", "answer_mass", "prompt_hash", "served_by", "raw_answer")
"""What is written of each cell beside its prediction."""


@dataclass(frozen=True)
class Prompting:
    """How cells are asked about.

    Attributes
    ----------
    asking : Asking
    facts : mapping of str to str
        Facts that hold for all cells (``drug``) and win over columns of obs.
    """

    asking: Asking = field(default_factory=Asking)
    facts: Mapping[str, str] = field(default_factory=dict)


class PromptScorer:
    """A text model, and the examples that it is shown.

    Parameters
    ----------
    loaded : LoadedText
    examples : sequence of KeptExample
        Empty: zero-shot.
    prompting : Prompting
    """

    def __init__(
        self, loaded: LoadedText, examples: Sequence[KeptExample], prompting: Prompting
    ) -> None:
        self.loaded, self.examples, self.prompting = loaded, tuple(examples), prompting

    def files(self) -> dict[str, bytes]:
        """Return the examples."""
        return {EXAMPLES_FILE: dump_examples(self.examples)}

    def questions(
        self, cells: Cells, index: np.ndarray, samples: np.ndarray | None = None
    ) -> list[Question]:
        """Return one question per cell.

        Parameters
        ----------
        cells : Cells
        index : (n,) int64
        samples : (n,) object str, optional
            Sample of each of these cells; an example of the same sample is not shown, and neither
            is the cell itself.
        """
        return ask_about(
            cells,
            self.loaded.model,
            index=index,
            given=self.prompting.facts,
            examples=self._examples_of(cells, index, samples),
        )

    def scores(
        self,
        cells: Cells,
        *,
        index: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        quiet: bool = False,
    ) -> Scores:
        """Ask about cells of a file; see :class:`~scdrugmap.train.scores.Scorer`."""
        del quiet  # what is said is part of `asking`
        index = np.arange(cells.n_cells) if index is None else index
        n_known = GeneLists(cells.genes, self.loaded.model).n_known
        if n_known < min(self.loaded.model.n_genes, cells.n_genes // 2):
            raise DataError(
                f"{cells.where}: only {n_known:,} of {cells.n_genes:,} genes have a known symbol, "
                f"and a question names {self.loaded.model.n_genes:,} genes of a cell",
                hint="are the names human genes? Try --gene-id, or a smaller top_k",
            )
        questions = self.questions(cells, index, samples)
        asked = [place for place, question in enumerate(questions) if question.genes]
        found = self.loaded.model.classify(
            [questions[place] for place in asked], self.prompting.asking
        )
        answers = [Answer("invalid", reason=NO_KNOWN_GENES)] * len(questions)
        for place, answer in zip(asked, found, strict=True):
            answers[place] = answer
        reason = np.array([answer.reason for answer in answers], object)
        silent = np.flatnonzero([not question.genes for question in questions])
        reason[silent] = np.where(empty_cells(cells, index[silent]), FEW_COUNTS, NO_KNOWN_GENES)
        return Scores(
            np.array([answer.p_sensitive for answer in answers], np.float32),
            reason,
            notices=tuple(_counts(found)),
            coverage=GeneCoverage(cells.n_genes, n_known, n_known),
            state=np.array([answer.state for answer in answers], object),
            answers=_table(answers),
        )

    def trial(self, rows: csr_matrix, genes: Genes, names: np.ndarray) -> Trial:
        """Hash the prompts of synthetic cells; ask only a model on this machine."""
        model = self.loaded.model
        shown = tuple(example.shown() for example in self.examples)
        questions = [
            Question(str(name), listed, examples=shown)
            for name, listed in zip(names, GeneLists(genes, model).of(rows), strict=True)
        ]
        tokens = tuple(
            hashlib.sha256(f"{model.template.key}\0{model.preview(question)}".encode()).hexdigest()
            for question in questions
        )
        p = np.full(len(questions), np.nan, np.float32)
        if not self.loaded.remote:
            answers = model.classify(questions, self.prompting.asking)
            p = np.array([answer.p_sensitive for answer in answers], np.float32)
        return Trial(p, tokens)

    def _examples_of(
        self, cells: Cells, index: np.ndarray, samples: np.ndarray | None
    ) -> list[tuple[Example, ...]]:
        if not self.examples:
            return []
        shown = [example.shown() for example in self.examples]
        fingerprints = cells.fingerprints()[index]
        of_sample: dict[str, str] = {}
        if samples is not None:
            names = {str(sample).partition("\0")[0] for sample in samples} - {""}
            of_sample = {name: sample_hash(name) for name in names}
        chosen = []
        for place, fingerprint in enumerate(fingerprints):
            sample = "" if samples is None else str(samples[place]).partition("\0")[0]
            own = of_sample.get(sample, "")
            chosen.append(
                tuple(
                    example
                    for example, kept in zip(shown, self.examples, strict=True)
                    if kept.fingerprint != fingerprint and kept.sample != own
                )
            )
        return chosen


def _table(answers: Sequence[Answer]) -> pd.DataFrame:
    """Return :data:`ANSWER_COLUMNS` of each cell."""
    return pd.DataFrame(
        {
            "flag": [answer.flag for answer in answers],
            "answer_mass": [answer.answer_mass for answer in answers],
            "prompt_hash": [answer.prompt_hash for answer in answers],
            "served_by": [answer.served_by for answer in answers],
            "raw_answer": [answer.raw for answer in answers],
        },
        columns=list(ANSWER_COLUMNS),
    )


def _counts(answers: Sequence[Answer]) -> list[str]:
    """Say how the answers came out."""
    if not answers:
        return []
    states = Counter(answer.state for answer in answers)
    lines = [
        ", ".join(f"{states[state]:,} {state}" for state in ("answered", "abstained", "invalid"))
        + f" of {len(answers):,} cells that were asked about"
    ]
    flags = Counter(answer.flag for answer in answers if answer.state == "answered")
    answered = max(states["answered"], 1)
    for flag, meaning in (
        (P_HARD, "have p = 1 or 0 from the label alone"),
        (P_CENSORED, "have a p that rests on a bound"),
    ):
        if flags[flag]:
            lines.append(
                f"{flags[flag]:,} answers ({flags[flag] / answered:.0%}) {meaning} ({flag})"
            )
    if flags[P_HARD] > 0.05 * answered:
        lines.append("more than 5 % of p are hard: AUROC and calibration mean little here")
    return lines
