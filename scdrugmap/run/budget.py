"""How a job fine-tunes: the same steps and the same rule to stop for every model, or the paper's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scdrugmap.run import paper
from scdrugmap.specs import ModelSpec
from scdrugmap.train.settings import FINE_TUNING, FineTuning

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig, Family
    from scdrugmap.run.entries import Entry


def job_tuning(
    config: BenchmarkConfig, entry: Entry, family: Family, n_cells: int
) -> FineTuning | None:
    """Return the settings of fine-tuning of a job; None for strategies that do none.

    Under sound protocols the number of steps and of steps between evaluations is computed from
    the training cells of the fold, as if every step had the usual number of cells: so it is the
    same for models that take more cells in a step. Under the paper's protocol they are the
    authors' (see :mod:`scdrugmap.run.paper`).

    Parameters
    ----------
    config : BenchmarkConfig
    entry : Entry
    family : {"sound", "paper"}
    n_cells : int
        Training cells of the fold.
    """
    if entry.strategy not in FINE_TUNING:
        return None
    if family == "paper":
        base = paper.tuning(entry.model, _own_targets(entry.model))
    else:
        base = _shared(config.tuning, n_cells)
    own = config.overrides.get(entry.model)
    given = {} if own is None else own.tuning.model_dump(exclude_none=True)
    tuning = base.model_copy(update=given)
    if entry.strategy == "lora":
        return tuning
    nothing: dict[str, Any] = dict.fromkeys(("targets", "r", "alpha", "dropout"))
    if family == "paper" and "learning_rate" not in given:
        nothing["learning_rate"] = None  # that of the authors is one of adapters
    return tuning.model_copy(update=nothing)


def _shared(tuning: FineTuning, n_cells: int) -> FineTuning:
    """Write the number of steps out."""
    from scdrugmap.train.steps import STEP_CELLS

    per_epoch = max(1, math.ceil(n_cells / (tuning.batch_size or STEP_CELLS)))
    steps = tuning.max_steps or tuning.epochs * per_epoch
    every = tuning.evaluate_every or per_epoch
    # An epoch has at least one step: so many epochs never end the training before its steps do.
    return tuning.model_copy(
        update={"max_steps": steps, "epochs": steps, "evaluate_every": min(every, steps)}
    )


def _own_targets(model: str) -> str | None:
    from scdrugmap.registry import get_registry

    spec = get_registry().provided("model", model).spec
    return spec.lora.targets if isinstance(spec, ModelSpec) and spec.lora else None
