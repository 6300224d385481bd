"""The ways to divide cells into training and test, and the question that each answers.

A protocol is one function and one row of :data:`PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    from scdrugmap.evaluation.folds import Assign

Family = Literal["sound", "paper"]
FEW_SHOT = "few-shot"
"""What the names of the protocols with few shots begin with: ``few-shot-4``, ``few-shot-4-cells``."""

SHOTS = (1, 2, 4, 8)
"""How many groups (or cells) of each label are known of the target."""


@dataclass(frozen=True)
class Protocol:
    """A way to divide cells.

    Attributes
    ----------
    name : str
    family : {"sound", "paper"}
        ``sound`` never puts cells of one group on both sides; ``paper`` repeats what others did.
    question : str
        What a figure under this protocol answers.
    function : str
        ``module:function`` of this package that divides the cells; see
        :data:`~scdrugmap.evaluation.folds.Assign`.
    options : tuple of (str, int or str)
        Further arguments of that function.
    trains : bool
        False where nothing is trained at all: only text models have an answer.
    frozen : bool
        The encoder must stay as it is: fine-tuning it would answer another question.
    """

    name: str
    family: Family
    question: str
    function: str
    options: tuple[tuple[str, int | str], ...] = ()
    trains: bool = True
    frozen: bool = False

    @property
    def holds_out(self) -> bool:
        """Whether it tests named targets; the others divide all cells alike."""
        return self.name not in ("pooled-group", "paper-pooled")

    @property
    def assign(self) -> Assign:
        """The function that divides the cells."""
        module, _, function = self.function.partition(":")
        found: Callable[..., object] = getattr(
            import_module(f"scdrugmap.evaluation.{module}"), function
        )
        return partial(found, **dict(self.options))  # type: ignore[return-value]


def _few_shot(shots: int, unit: Literal["sample", "cell"]) -> Protocol:
    what = "samples" if unit == "sample" else "cells"
    return Protocol(
        few_shot_name(shots, unit),
        "sound",
        f"Does it work for a new dataset of which {shots} {what} of each label are known?",
        "few_shot:few_shot",
        (("shots", shots), ("unit", unit)),
    )


def few_shot_name(shots: int, unit: str) -> str:
    """Return the name of the protocol with so many shots.

    Parameters
    ----------
    shots : int
        Groups of each label, or cells of these groups.
    unit : {"sample", "cell"}

    Raises
    ------
    UsageError
        There is none.
    """
    if shots not in SHOTS:
        raise UsageError(
            f"--shots {shots}: there is no such protocol",
            hint=f"there are: {', '.join(map(str, SHOTS))}",
        )
    return f"{FEW_SHOT}-{shots}" + "-cells" * (unit == "cell")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "pooled-group",
            "sound",
            "Does it work for a new patient of a known study?",
            "cross_validation:pooled_group",
        ),
        Protocol(
            "within",
            "sound",
            "Does it work for a new patient of this dataset?",
            "cross_validation:within",
        ),
        Protocol("lodo", "sound", "Does it work for a new dataset?", "held_out:lodo"),
        Protocol("loso", "sound", "Does it work for a new study?", "held_out:loso"),
        Protocol("loco", "sound", "Does it work for a new disease?", "held_out:loco"),
        Protocol("lodrug", "sound", "Does it work for a new drug?", "held_out:lodrug"),
        Protocol(
            "external",
            "sound",
            "Does what was learnt on the primary collection hold for the external one?",
            "held_out:external",
        ),
        *(_few_shot(shots, "sample") for shots in SHOTS),
        *(_few_shot(shots, "cell") for shots in SHOTS),
        Protocol(
            "zero-shot",
            "sound",
            "Does it work for a dataset of which no label is known, with an encoder as it is and "
            "a head trained on other studies?",
            "held_out:zero_shot",
            frozen=True,
        ),
        Protocol(
            "zero-shot-unlabelled",
            "sound",
            "What is known without any training label?",
            "held_out:zero_shot_unlabelled",
            trains=False,
            frozen=True,
        ),
        Protocol(
            "paper-pooled",
            "paper",
            "What would a random split of cells report? (no evidence)",
            "cross_validation:paper_pooled",
        ),
    )
}
"""Every protocol by name; the first is the default."""


def get_protocol(name: str) -> Protocol:
    """Return a protocol.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    import difflib

    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"there is no protocol {name!r}{guess}", hint=f"there are: {', '.join(PROTOCOLS)}"
    )
