"""What a predictor was made with, against what is installed here."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import PluginError, WeightsError
from scdrugmap.registry import get_registry
from scdrugmap.specs import SUPPORTED_CONTRACTS

if TYPE_CHECKING:
    from scdrugmap.registry import Provided
    from scdrugmap.specs import EstimatorSpec, ModelSpec, TextModelSpec
    from scdrugmap.train.record import PredictorInfo, WeightsInfo
    from scdrugmap.weights import WeightsRecord

_ALLOW = "or go on at your own risk with --allow-mismatch"


class Mismatches:
    """Stops at the first difference that changes numbers; or, if told so, collects them.

    Parameters
    ----------
    allow : bool

    Attributes
    ----------
    found : list of str
        One line per difference that was allowed.
    """

    def __init__(self, allow: bool = False) -> None:
        self.allow = allow
        self.found: list[str] = []

    def meet(self, error: PluginError | WeightsError) -> None:
        """Raise the error, or remember what it says."""
        if self.allow:
            self.found.append(error.message)
            return
        hint = f"{error.hint}, {_ALLOW}" if error.hint else _ALLOW
        raise type(error)(error.message, hint=hint) from error


def installed(info: PredictorInfo) -> Provided[Any]:
    """Return the model or estimator of a predictor, with its plugin.

    Raises
    ------
    PluginError
        It is not installed; names what was.
    """
    kind = "estimator" if info.strategy == "estimator" else "model"
    try:
        return get_registry().provided(kind, info.name)
    except PluginError as err:
        made_with = f"{info.plugin.distribution} {info.plugin.version}"
        raise PluginError(
            err.message, hint=f"the predictor was made with {made_with}: install that; {err.hint}"
        ) from err


def check_plugin(
    info: PredictorInfo, spec: EstimatorSpec | ModelSpec | TextModelSpec, mismatches: Mismatches
) -> list[str]:
    """Compare the installed model or estimator with the one that was trained with.

    Returns
    -------
    list of str
        Differences that change no number.

    Raises
    ------
    PluginError
        It speaks a contract that this version does not know; or, unless allowed, another contract
        or numerics number, or it comes from another distribution.
    """
    made_with = f"{info.plugin.distribution} {info.plugin.version}"
    hint = f"it was made with {made_with}"
    spoken = PluginError(
        f"the predictor speaks contract {info.contract}, the installed {info.name} {spec.contract}",
        hint=hint,
    )
    if info.contract not in SUPPORTED_CONTRACTS:
        raise spoken
    if spec.contract != info.contract:
        mismatches.meet(spoken)
    plugin = installed(info).plugin
    here = f"{plugin.distribution} {plugin.version}"
    if plugin.distribution != info.plugin.distribution:
        mismatches.meet(
            PluginError(
                f"the predictor was made with {info.name} of {made_with}; {here} is installed",
                hint=f"install {made_with}",
            )
        )
    elif spec.numerics != info.numerics:
        mismatches.meet(
            PluginError(
                f"{info.name} of {here} gives other numbers (numerics {spec.numerics}) than "
                f"that of {made_with} ({info.numerics}), which the predictor was made with",
                hint=f"train it again, or install {made_with}",
            )
        )
    elif plugin.version != info.plugin.version:
        return [f"the predictor was made with {made_with}; {here} gives the same numbers"]
    return []


def check_weights(wanted: WeightsInfo | None, have: WeightsRecord, mismatches: Mismatches) -> None:
    """Compare the weights that were found with those that were trained on.

    Raises
    ------
    WeightsError
        They are others, unless allowed.
    """
    if wanted is not None and (have.digest, have.randomize) == (wanted.digest, wanted.randomize):
        return
    there = f"{wanted.label} ({wanted.digest[:12]})" if wanted else "other weights"
    homepage = f"; see {wanted.homepage}" if wanted and wanted.homepage else ""
    mismatches.meet(
        WeightsError(
            f"the predictor was trained on {there}; these are {have.label} ({have.digest[:12]})",
            hint=f"give the same weights with --weights{homepage}",
        )
    )


def base_weights(spec: ModelSpec, wanted: WeightsInfo, *, variant: str = "") -> Path | None:
    """Find the weights that a predictor was trained on, by hash wherever weights are kept.

    Parameters
    ----------
    spec : ModelSpec
    wanted : WeightsInfo
    variant : str
        Published checkpoint.

    Returns
    -------
    Path or None
        An imported folder with this hash, else the folder of the variant's name, whose hash is
        known when it has been read; None: the model needs no weights.

    Raises
    ------
    WeightsError
        There is none; says which are missing, and how to get them.
    """
    from scdrugmap.weights import find_weights

    found = _imported(spec, wanted.digest)
    if found is not None:
        return found
    try:
        return find_weights(spec, variant=variant)
    except WeightsError as err:
        raise WeightsError(
            f"the predictor needs the weights {wanted.label} of {spec.name} (hash "
            f"{wanted.digest[:12]}), which it does not hold: {err.message}",
            hint=f"{err.hint.partition('; or try without')[0]}; or name their folder with --weights",
        ) from err


def _imported(spec: ModelSpec, digest: str) -> Path | None:
    """Return an imported folder of this hash; known by its manifest, a damaged one is passed by."""
    from scdrugmap.manifest import MANIFEST, read_manifest
    from scdrugmap.weights import places

    for kept in (place.parent for place in places(spec, spec.name)):
        for folder in sorted(kept.iterdir()) if kept.is_dir() else ():
            with contextlib.suppress(WeightsError):
                if (folder / MANIFEST).is_file() and read_manifest(folder).digest == digest:
                    return folder
    return None
