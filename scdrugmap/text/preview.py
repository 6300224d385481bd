"""Show what would be asked, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import DataError, UsageError
from scdrugmap.text.contract import RemoteTextModel
from scdrugmap.text.scorer import PromptScorer

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells
    from scdrugmap.text.scorer import Prompting
    from scdrugmap.train.predictor import Predictor


def preview_cells(predictor: Predictor, cells: Cells, prompting: Prompting) -> str:
    """Return the prompt of the first cell that has genes, and what asking about all would cost.

    Raises
    ------
    UsageError
        The predictor asks no text model.
    DataError
        No cell expresses a known gene.
    """
    scorer = predictor.scorer(prompting=prompting)
    if not isinstance(scorer, PromptScorer):
        raise UsageError(
            f"a {predictor.info.strategy} predictor asks nobody",
            hint="--dry-run is for text models",
        )
    questions = scorer.questions(cells, np.arange(cells.n_cells))
    asked = [question for question in questions if question.genes]
    if not asked:
        raise DataError(f"{cells.where}: no cell expresses a gene with a known symbol")
    model = scorer.loaded.model
    lines = [f"The prompt of the first of {len(asked):,} cells:", "", model.preview(asked[0]), ""]
    if isinstance(model, RemoteTextModel):
        lines += model.forecast(asked, prompting.asking)
    else:
        lines.append("it is read on this machine; nothing is sent")
    return "\n".join(lines)


def preview_file(
    source: Path, predictor: Predictor, *, prompting: Prompting, **reading: Any
) -> str:
    """Do :func:`preview_cells` for a file; `reading` as for ``predict_file``."""
    from scdrugmap.train.predict import open_like_training

    with open_like_training(source, predictor.info, **reading) as cells:
        return preview_cells(predictor, cells, prompting)
