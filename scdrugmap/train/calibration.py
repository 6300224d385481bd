"""What validation cells are used for: temperature, threshold and conformal sets.

Temperature scaling divides the logit of every probability by one number (Guo, Pleiss, Sun and
Weinberger, On Calibration of Modern Neural Networks, ICML 2017). It moves 0.5 nowhere and keeps
the order of cells.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.train.conformal import calibrate_sets
from scdrugmap.train.record import CalibrationInfo, ConformalInfo, Threshold
from scdrugmap.train.thresholds import best_threshold

if TYPE_CHECKING:
    from scdrugmap.train.gather import Chosen
    from scdrugmap.train.scores import Scorer

TEMPERATURES = (0.1, 10.0)
"""Temperatures that are tried; a best one at the border is no minimum."""

FEW_GROUPS = 5
"""With fewer validation groups than this the temperature is said to rest on few."""

NOT_CALIBRATED = (
    "no validation cells with both labels: the probabilities are not calibrated and there are no "
    "conformal sets (`scdrugmap split --validation` sets such cells aside)"
)

_LEAST = 2.0**-24
"""Half the distance from 1 to the next float32: 0 and 1 themselves have no logit."""


@dataclass(frozen=True)
class Answers:
    """Probabilities of labelled cells.

    Attributes
    ----------
    p : (n,) float32
        Probability of sensitive, not scaled.
    y : (n,) float
        1 for sensitive, 0 for resistant.
    groups : (n,) object str
    """

    p: np.ndarray
    y: np.ndarray
    groups: np.ndarray

    @property
    def n_groups(self) -> int:
        """How many groups the cells are of."""
        return len(set(self.groups))

    @property
    def both_labels(self) -> bool:
        """Whether cells of both labels are there."""
        return bool(0 < self.y.sum() < len(self.y))


@dataclass(frozen=True)
class Validated:
    """What the validation cells decided; nothing of it exists without them."""

    threshold: Threshold
    calibration: CalibrationInfo | None = None
    conformal: ConformalInfo | None = None
    notices: tuple[str, ...] = ()


def use_validation(
    scorer: Scorer,
    validation: Sequence[Chosen],
    trained_groups: Collection[str] = (),
    *,
    stopped: bool = False,
    quiet: bool = False,
) -> Validated:
    """Predict the validation cells once and learn all that is learnt from them.

    Parameters
    ----------
    scorer : Scorer
        Trained without these cells.
    validation : sequence of Chosen
        Empty: no cell has the role.
    trained_groups : collection of str
        Groups of the training cells; a sound split keeps them apart from those of `validation`.
    stopped : bool
        These cells also told when to stop training.
    quiet : bool
    """
    if not validation:
        return Validated(Threshold())
    answers = _answers(scorer, validation, quiet=quiet)
    if not answers.both_labels:
        notice = (
            f"the {len(answers.y):,} validation cells have one label only: the threshold stays 0.5"
        )
        return Validated(Threshold(), notices=(notice,))
    calibration, notices = fit_temperature(answers)
    scaled = scale(answers.p, calibration.temperature)
    threshold = Threshold(
        value=best_threshold(scaled, answers.y), source="validation", n_validation=len(answers.y)
    )
    conformal = calibrate_sets(scaled, answers.y, answers.groups, trained_groups, stopped=stopped)
    if not conformal.apart:
        notices.append(
            "the validation groups were trained on too: temperature, threshold and conformal sets "
            "hold for cells of these groups, not for new ones"
        )
    return Validated(threshold, calibration, conformal, tuple(notices))


def _answers(scorer: Scorer, validation: Sequence[Chosen], *, quiet: bool) -> Answers:
    """Predict the cells; those without an answer are left out."""
    p, y, groups = [], [], []
    for part in validation:
        found = scorer.scores(part.cells, index=part.index, samples=part.samples, quiet=quiet)
        valid = found.reason == ""
        p.append(found.p[valid])
        y.append(part.y[valid])
        groups.append(part.groups[valid])
    return Answers(np.concatenate(p), np.concatenate(y), np.concatenate(groups))


def fit_temperature(answers: Answers) -> tuple[CalibrationInfo, list[str]]:
    """Find the temperature with the least negative log-likelihood, every group counting the same.

    Parameters
    ----------
    answers : Answers
        Both labels occur.

    Returns
    -------
    calibration : CalibrationInfo
    notices : list of str
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_expit

    _, code = np.unique(answers.groups.astype(str), return_inverse=True)
    weight = 1 / np.bincount(code)[code] / answers.n_groups
    margin = _logit(answers.p) * np.where(answers.y > 0, 1, -1)

    def loss(log_temperature: float) -> float:
        return float(-(weight * log_expit(margin / np.exp(log_temperature))).sum())

    low, high = np.log(TEMPERATURES)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    notices = []
    if loss(low) == loss(high):  # every cell has 0.5
        best = 0.0
    elif loss(low) <= loss(best):
        best = 0.0
        notices.append(
            f"the {len(answers.y):,} validation cells of {answers.n_groups} groups are told apart "
            f"so clearly that the best temperature is below {TEMPERATURES[0]:g}, which says more "
            "about these cells than about how sure to be: the probabilities stay as they are"
        )
    elif loss(high) <= loss(best):
        best = high
        notices.append(
            f"the validation cells of {answers.n_groups} groups are not told apart: all "
            "probabilities are drawn close to 0.5"
        )
    elif answers.n_groups < FEW_GROUPS:
        notices.append(
            f"the temperature rests on {answers.n_groups} validation groups only "
            f"(fewer than {FEW_GROUPS}): the probabilities of new groups may be off"
        )
    return CalibrationInfo(
        temperature=float(f"{np.exp(best):.6g}"),
        n_cells=len(answers.y),
        n_groups=answers.n_groups,
        loss_before=loss(0.0),
        loss_after=loss(best),
    ), notices


def scale(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logit of each probability by the temperature.

    Parameters
    ----------
    p : (n,) float32
        NaN stays NaN.
    temperature : float
        1 changes nothing; above it probabilities come closer to 0.5.

    Returns
    -------
    (n,) float32
    """
    from scipy.special import expit

    if temperature == 1:
        return p
    scaled: np.ndarray = expit(_logit(p) / temperature).astype(np.float32)
    return scaled


def _logit(p: np.ndarray) -> np.ndarray:
    from scipy.special import logit

    found: np.ndarray = logit(p.astype(np.float64).clip(_LEAST, 1 - _LEAST))
    return found
