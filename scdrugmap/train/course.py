"""How far a training came: all of it that is not a tensor, JSON-able."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Course:
    """How a training went so far; all but the speed is the same for any interruption.

    Attributes
    ----------
    step : int
        Steps done.
    history : list of dict
        One per evaluation: step, epoch, loss (mean of the training steps since the last one),
        validation_loss (None without validation cells) and learning_rate.
    best_step : int
        Step of the state that is kept.
    best_loss : float or None
    stale : int
        Evaluations since then.
    losses : list of float
        Of the steps since the last evaluation.
    budget : int
        Most tokens of a batch.
    seconds, cells, tokens : float
        Spent on steps, and what went through the network.
    stopped : bool
        Whether it stopped before the last step.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    stale: int = 0
    losses: list[float] = field(default_factory=list)
    budget: int = 0
    seconds: float = 0.0
    cells: float = 0.0
    tokens: float = 0.0
    stopped: bool = False
