"""Where the weights of models are looked for, and how to get those that are not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.manifest import MANIFEST
from scdrugmap.specs import ModelSpec, WeightSet

RANDOM = "random"
"""What ``--weights`` takes in place of a folder for the untrained control."""

WEIGHTS_VARIABLE = "SCDRUGMAP_WEIGHTS"


def weight_set(spec: ModelSpec, variant: str) -> WeightSet:
    """Return the set of weights of a variant: the one of its name, else the first."""
    name = spec.variant(variant).name
    return next((item for item in spec.weights if item.name == name), spec.weights[0])


def places(spec: ModelSpec, name: str) -> list[Path]:
    """Return the folders where weights of that name are looked for, in this order."""
    from scdrugmap.run.store import default_root

    found = []
    if os.environ.get(WEIGHTS_VARIABLE):
        found.append(Path(os.environ[WEIGHTS_VARIABLE]) / spec.name / name)
    cache = default_root()
    if cache is not None:
        found.append(cache / "weights" / spec.name / name)
    return found


def find_weights(
    spec: ModelSpec, given: str | Path | None = None, *, variant: str = ""
) -> Path | None:
    """Return the folder of a model's weights; None: random ones, or it needs none.

    Parameters
    ----------
    spec : ModelSpec
    given : str or Path, optional
        What ``--weights`` or the configuration says: a folder, or ``random``.
    variant : str
        Published checkpoint; ``""``: the default one.

    Raises
    ------
    UsageError
        `given` is no folder.
    WeightsError
        Nothing is given and nothing found; says what to fetch, where, and what to type then.
    """
    if str(given) == RANDOM or not spec.needs_weights:
        return None
    chosen = spec.variant(variant)
    if not chosen.published:
        raise UsageError(
            f"variant {chosen.name} of {spec.name} is not published: it has no weights",
            hint="add --weights random, or choose another variant",
        )
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise UsageError(
                f"weights of {spec.name}: {folder} is "
                + ("no folder" if folder.exists() else "not there"),
                hint="name the folder that holds the model's files, or random",
            )
        return folder
    looked = places(spec, chosen.name)
    found = _first_there(looked)
    if found is not None:
        return found
    raise WeightsError(
        f"{spec.name}: no weights of {chosen.name} in {' or '.join(map(str, looked))}",
        hint=how_to_get(spec, chosen.name),
    )


def _first_there(folders: list[Path]) -> Path | None:
    return next((path for path in folders if path.is_dir() and any(path.iterdir())), None)


def how_to_get(spec: ModelSpec, variant: str = "") -> str:
    """Say in one line how to get a model's weights."""
    item = weight_set(spec, variant)
    login = " (needs a login there)" if item.needs_login else ""
    notes = f" ({item.notes})" if item.notes else ""
    chosen = f" --variant {item.name}" if item.name != spec.variant().name else ""
    return (
        f"fetch {', '.join(file.path for file in item.files)} from {item.homepage}{notes}{login} "
        f"into one FOLDER, then type: scdrugmap weights import {spec.name} FOLDER{chosen}; "
        "or try without: --weights random"
    )


def place_to_keep(spec: ModelSpec, name: str) -> Path:
    """Return the folder in which weights are found by that name later.

    Raises
    ------
    UsageError
        There is none.
    """
    looked = places(spec, name)
    if not looked:
        raise UsageError("there is no folder to keep weights in", hint="name one with -o")
    return looked[0]


def state_of_weights(spec: ModelSpec) -> list[dict[str, Any]]:
    """Return one JSON-able record per weight set: what it is, and where it was found."""
    rows = []
    for item in spec.weights:
        found = _first_there(places(spec, item.name))
        rows.append(
            {
                "model": spec.name,
                "name": item.name,
                "found": str(found) if found else None,
                "imported": bool(found and (found / MANIFEST).is_file()),
                "licence": item.licence,
                "commercial_use": item.commercial_use,
                "homepage": item.homepage,
                "needs_login": item.needs_login,
                "files": [file.model_dump(mode="json") for file in item.files],
                "how_to_get": how_to_get(spec, item.name),
            }
        )
    return rows
