"""Datasets by name: the paper's, those that plugins offer and those a user registered.

Registered cohorts stand in one JSON file, ``datasets.json`` under ``SCDRUGMAP_DATA`` or, without
it, under ``~/.config/scdrugmap``. The cells stay where they are.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from scdrugmap.data.paper import Correction, PaperDataset, paper_datasets, regimen_components
from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.files import write_json
from scdrugmap.registry import get_registry
from scdrugmap.specs import DatasetSpec
from scdrugmap.system_errors import resource_error

PLACE_VARIABLE = "SCDRUGMAP_DATA"
FILE_NAME = "datasets.json"
USER, PAPER = "user", "paper"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Entry:
    """A dataset and who offers it: a distribution, ``user``, or ``paper``.

    Datasets of the paper have no cells here; ``corrections`` says which of their facts are read
    otherwise than they were published, ``notes`` what is doubtful about the others.
    """

    spec: DatasetSpec
    source: str
    corrections: tuple[Correction, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return everything known of the dataset, JSON-able."""
        return {
            **self.spec.model_dump(mode="json"),
            "source": self.source,
            "corrections": [asdict(correction) for correction in self.corrections],
            "notes": list(self.notes),
        }


def _of_paper(dataset: PaperDataset) -> Entry:
    spec = DatasetSpec(name=dataset.name, title=dataset.title, facts=dataset.facts)
    return Entry(spec, PAPER, dataset.corrections, dataset.notes)


def catalogue_path() -> Path:
    """Return the file of registered datasets.

    Raises
    ------
    ResourceError
        There is no home folder and no ``SCDRUGMAP_DATA``.
    """
    place = os.environ.get(PLACE_VARIABLE)
    if place:
        return Path(place) / FILE_NAME
    try:
        return Path.home() / ".config" / "scdrugmap" / FILE_NAME
    except RuntimeError as err:
        raise ResourceError(
            "there is no home folder to keep datasets in", hint=f"set {PLACE_VARIABLE} to a folder"
        ) from err


def all_datasets() -> dict[str, Entry]:
    """Return the datasets of the paper, of plugins and of the user, by name; the last win."""
    found = {name: _of_paper(dataset) for name, dataset in paper_datasets().items()}
    found.update(
        (name, Entry(item.spec, item.plugin.distribution))
        for name, item in get_registry().items["dataset"].items()
    )
    found.update((name, Entry(spec, USER)) for name, spec in _registered().items())
    return dict(sorted(found.items()))


FILTERS = {
    "collection": ("collection",),
    "tissue": ("tissue",),
    "cancer": ("cancer_type_level1", "cancer_type_level2"),
    "drug_type": ("drug_type",),
    "platform": ("platform",),
    "accession": ("accession",),
}
"""Filter: the facts of which one must hold its text, in any case; ``drug`` is apart."""


def select_datasets(
    entries: Mapping[str, Entry], wanted: Mapping[str, str], *, drug: str = ""
) -> dict[str, Entry]:
    """Return the datasets that fit all filters.

    Parameters
    ----------
    entries : mapping of str to Entry
    wanted : mapping of str to str
        Filter of :data:`FILTERS` to text; empty texts do not count.
    drug : str
        A component of the regimen, as "paclitaxel": all of its name, in any case.

    Raises
    ------
    UsageError
        No dataset has such a fact; the message lists those there are.
    """
    chosen = dict(entries)
    for name, text in wanted.items():
        if text:
            facts = FILTERS[name]
            seen = {key: [_fact(entry, fact) for fact in facts] for key, entry in entries.items()}
            fit = {key for key, values in seen.items() if _holds(values, text)}
            if not fit:
                known = {value for values in seen.values() for value in values}
                raise _no_such(name, text, known)
            chosen = {key: entry for key, entry in chosen.items() if key in fit}
    if drug:
        parts = {key: regimen_components(_fact(e, "regimen")) for key, e in entries.items()}
        fit = {key for key, components in parts.items() if drug.strip().lower() in components}
        if not fit:
            raise _no_such("drug", drug, {part for found in parts.values() for part in found})
        chosen = {key: entry for key, entry in chosen.items() if key in fit}
    return chosen


def _fact(entry: Entry, name: str) -> str:
    return str(entry.spec.facts.get(name) or "")


def _holds(values: Iterable[str], text: str) -> bool:
    return any(text.strip().lower() in value.lower() for value in values)


def _no_such(name: str, text: str, known: set[str]) -> UsageError:
    option = "--" + name.replace("_", "-")
    near = difflib.get_close_matches(text.lower(), [value.lower() for value in known], n=3)
    there = ", ".join(sorted(known - {""}))
    return UsageError(
        f"no dataset has {option} {text!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else f"there are: {there}",
    )


def get_dataset(name: str) -> Entry:
    """Return a dataset.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    known = all_datasets()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3)
    raise UsageError(
        f"there is no dataset {name!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "`scdrugmap datasets list` shows them; `scdrugmap datasets add FILE` registers one",
    )


def add_dataset(
    path: str | Path,
    *,
    label: str,
    group: str = "",
    name: str = "",
    title: str = "",
    sensitive: Iterable[str] = (),
    resistant: Iterable[str] = (),
    drop: Iterable[str] = (),
    overwrite: bool = False,
) -> DatasetSpec:
    """Register a cohort of the user's, after a look at its columns.

    Parameters
    ----------
    path : path
        File of cells; its absolute path is stored.
    label, group : str
        Columns of obs: the response, and what cells belong together by (patients).
    name : str
        Default: the file's name without its ending.
    title : str
    sensitive, resistant, drop : iterable of str
        What the words of `label` mean.
    overwrite : bool
        Replace a dataset of the same name.

    Raises
    ------
    UsageError
        The name is taken or unusable, or a column does not exist.
    DataError
        The file cannot be read, or a label has no meaning.
    ResourceError
        The catalogue cannot be written.
    """
    from scdrugmap.data.labels import LabelMap, require_column
    from scdrugmap.data.obs import read_obs

    path = Path(path)
    sensitive, resistant, drop = tuple(sensitive), tuple(resistant), tuple(drop)
    labels = LabelMap.parse(sensitive, resistant, drop)
    stem, obs = read_obs(path)
    name = name or stem
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a dataset: letters, digits, '_', '.' and '-' only",
            hint="choose one with --name",
        )
    registered = _registered()
    if name in registered and not overwrite:
        raise UsageError(
            f"there is a dataset {name!r} already ({registered[name].path})",
            hint="choose another --name, or add --overwrite",
        )
    words = labels.apply(require_column(obs, label, "--label", path.name), where=path.name)
    facts: dict[str, str | int | float | None] = {
        "n_cells": len(obs),
        "n_sensitive": int((words.values == "sensitive").sum()),
        "n_resistant": int((words.values == "resistant").sum()),
    }
    if group:
        facts["n_groups"] = int(require_column(obs, group, "--group", path.name).nunique())
    spec = DatasetSpec(
        name=name,
        title=title,
        path=str(path.resolve()),
        label=label,
        group=group,
        sensitive=sensitive,
        resistant=resistant,
        drop=drop,
        facts=facts,
    )
    _write({**registered, name: spec})
    return spec


def remove_dataset(name: str) -> None:
    """Forget a registered dataset; its file stays.

    Raises
    ------
    UsageError
        The user registered none of that name.
    """
    registered = _registered()
    if name not in registered:
        source = get_dataset(name).source
        origin = "is one of the paper's" if source == PAPER else "comes with a plugin"
        raise UsageError(f"{name} {origin}; only registered datasets can be removed")
    del registered[name]
    _write(registered)


def _registered() -> dict[str, DatasetSpec]:
    try:
        path = catalogue_path()
    except ResourceError:
        return {}
    try:
        listed = json.loads(path.read_text("utf-8"))
        specs = [DatasetSpec.model_validate(item) for item in listed]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError, ValidationError) as err:
        raise DataError(
            f"{path} is no list of datasets: {str(err).splitlines()[0]}",
            hint="mend it, or move it away and register the datasets again",
        ) from err
    except OSError as err:
        raise (resource_error(err, path) or err) from err
    return {spec.name: spec for spec in specs}


def _write(specs: dict[str, DatasetSpec]) -> None:
    path = catalogue_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise (resource_error(err, path.parent) or err) from err
    write_json(path, [specs[name].model_dump(mode="json") for name in sorted(specs)])
