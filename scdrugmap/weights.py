"""Find, read, convert and pin the weights of models; nothing is ever downloaded.

A folder of weights has one of two layouts: as its authors ship it (*published*), or converted once
by ``scdrugmap weights import`` (*imported*: ``model.safetensors``, ``config.json``,
``vocabulary.json``, ``manifest.json``). Both give the same :class:`~scdrugmap.modelkit.Weights`
and the same digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from scdrugmap import __version__
from scdrugmap.errors import PluginError, UsageError, WeightsError
from scdrugmap.files import (
    atomic_folder,
    atomic_path,
    hash_json,
    remove,
    resource_error,
    write_json,
    write_text,
)
from scdrugmap.manifest import (
    CONFIG,
    MANIFEST,
    TENSORS,
    VOCABULARY,
    FileRecord,
    Manifest,
    file_record,
    read_manifest,
)
from scdrugmap.modelkit.published import PublishedFolder, Weights
from scdrugmap.specs import ModelSpec, Variant, WeightSet, load_object

RANDOM = "random"
"""What ``--weights`` takes in place of a folder for the untrained control."""

WEIGHTS_VARIABLE = "SCDRUGMAP_WEIGHTS"

_RANDOM_LABEL = "random weights (untrained, means nothing)"


@dataclass(frozen=True)
class WeightsRecord:
    """Which weights a model was loaded with."""

    source: Literal["random", "published", "imported", "none"]
    path: Path | None
    digest: str
    """Hash of the published files; the same before and after an import. ``random`` or ``none``."""
    label: str
    """For people; stands beside every result."""
    licence: str = ""
    commercial_use: bool | None = None
    notice: str = ""
    """What the licence wants said before use and beside what is made with the weights."""
    randomize: int | None = None
    """Seed that replaced all tensors; None: they are as published."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each published file."""
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Where each of them lies, perhaps beside the folder; empty once they are imported."""
    notices: tuple[str, ...] = ()
    """What a user should be told, one line each."""

    @property
    def untrained(self) -> bool:
        """Whether the tensors are random although the model has published ones."""
        return self.source == "random" or self.randomize is not None


RANDOM_WEIGHTS = WeightsRecord("random", None, RANDOM, _RANDOM_LABEL)
NO_WEIGHTS = WeightsRecord("none", None, "none", "needs no weights")


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


def open_weights(
    spec: ModelSpec, folder: Path, *, variant: str = ""
) -> tuple[Weights, WeightsRecord]:
    """Read a folder of weights in either layout; its files are hashed once per process.

    Raises
    ------
    WeightsError
        A file is missing, damaged, of another model or variant, or not what was imported.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        return _open_imported(spec, folder, variant)
    weights, published, paths = _read_published(spec, folder, spec.variant(variant))
    item = weight_set(spec, variant)
    known = {file.path: file.sha256 for file in item.files if file.sha256}
    other = [name for name, sha256 in known.items() if _differs(published, name, sha256)]
    notices: tuple[str, ...] = ()
    if other:
        why = "your own training, or a new upload?"
        notices = (f"{folder}: {', '.join(other)}: not as others have seen {item.name}: {why}",)
    digest = _digest(spec, spec.variant(variant).name, published)
    record = _record("published", folder, digest, folder.name, item, published, notices)
    return weights, replace(record, paths=paths)


def _differs(published: Mapping[str, FileRecord], name: str, sha256: str) -> bool:
    return name in published and published[name].sha256 != sha256


def _record(
    source: Literal["published", "imported"],
    folder: Path,
    digest: str,
    name: str,
    item: WeightSet,
    published: Mapping[str, FileRecord],
    notices: tuple[str, ...] = (),
) -> WeightsRecord:
    if item.commercial_use is False:
        notices += (f"weights of {name}: not for commercial use ({item.licence})",)
    if item.notice:
        notices += (f"weights of {name}: {item.notice}",)
    return WeightsRecord(
        source=source,
        path=folder,
        digest=digest,
        label=f"{name} ({digest[:12]})",
        licence=item.licence,
        commercial_use=item.commercial_use,
        notice=item.notice,
        files={name: file.sha256 for name, file in published.items()},
        notices=notices,
    )


def _digest(spec: ModelSpec, variant: str, published: Mapping[str, FileRecord]) -> str:
    files = {name: record.sha256 for name, record in published.items()}
    return hash_json({"model": spec.name, "variant": variant, "files": files})


def _read_published(
    spec: ModelSpec, folder: Path, variant: Variant
) -> tuple[Weights, dict[str, FileRecord], dict[str, Path]]:
    if spec.weights_reader is None:
        raise PluginError(
            f"model {spec.name} cannot read weights: its spec names no weights_reader",
            hint="update the plugin, or use --weights random",
        )
    published = PublishedFolder(folder)
    weights: Weights = load_object(spec.weights_reader)(published, variant)
    paths = dict(sorted(published.opened.items()))
    return weights, {name: file_record(path) for name, path in paths.items()}, paths


def _open_imported(spec: ModelSpec, folder: Path, variant: str) -> tuple[Weights, WeightsRecord]:
    manifest = read_manifest(folder)
    if manifest.model != spec.name:
        raise WeightsError(f"{folder} holds weights of {manifest.model}, not of {spec.name}")
    if variant and variant != manifest.variant:
        raise WeightsError(
            f"{folder} holds {manifest.variant} of {spec.name}, not {variant}",
            hint="leave variant out, or name another folder",
        )
    here = PublishedFolder(folder)
    for name in (CONFIG, VOCABULARY, TENSORS):
        expected, found = manifest.files.get(name), file_record(here.path(name))
        if expected != found:
            raise WeightsError(
                f"{folder / name} is not the file that was imported: "
                f"sha256 {found.sha256[:16]}, expected {expected.sha256[:16] if expected else '?'}",
                hint="it was damaged or edited: import the weights again",
            )
    weights = Weights(
        here.json(CONFIG), here.json(VOCABULARY), here.safetensors(TENSORS), str(folder)
    )
    item = weight_set(spec, manifest.variant)
    name, published = manifest.name, manifest.published
    return weights, _record("imported", folder, manifest.digest, name, item, published)


def import_weights(
    spec: ModelSpec,
    folder: Path,
    *,
    variant: str = "",
    name: str = "",
    output: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a published folder once; later loads are memory-mapped and touch no pickle.

    The hashes of the published files are pinned: importing other files under the same name is an
    error. Importing the same files again does nothing.

    Parameters
    ----------
    spec : ModelSpec
    folder : Path
        As the authors ship it.
    variant : str
        Published checkpoint that it is, or was trained from; ``""``: the default one.
    name : str
        Name under which it is kept; ``""``: that of the variant.
    output : Path, optional
        Folder to write; default: where it is found without ``--weights``.
    overwrite : bool
        Replace an import of other files.

    Returns
    -------
    Path
        The imported folder.

    Raises
    ------
    UsageError
        The output exists and is no import, or there is no place for it.
    WeightsError
        The folder cannot be read, or other files were pinned under this name.
    """
    from safetensors.torch import save_file

    if (Path(folder) / MANIFEST).is_file():
        raise UsageError(f"{folder} is imported already", hint="use it with --weights")
    chosen = spec.variant(variant)
    if not spec.needs_weights or not chosen.published:
        raise UsageError(f"{chosen.name} of {spec.name} has no published weights")
    name = name or chosen.name
    target = Path(output) if output is not None else _home(spec, name)
    weights, published, _ = _read_published(spec, folder, chosen)
    digest = _digest(spec, chosen.name, published)
    if target.exists():
        pinned = read_manifest(target) if (target / MANIFEST).is_file() else None
        if pinned is None and (target.is_file() or any(target.iterdir())):
            raise UsageError(f"{target} exists and holds no imported weights")
        if pinned is not None and pinned.digest == digest:
            open_weights(spec, target)
            return target
        if pinned is not None and not overwrite:
            raise WeightsError(
                f"{folder}: {_changed(pinned, published)} not what was imported as {name} "
                f"on {pinned.imported_at[:10]}",
                hint="choose another --name, or add --overwrite if you trust the new files",
            )
    options = spec.options.model_validate({"variant": chosen.name})
    load_object(spec.factory)(options, weights, 0)  # makes every check that loading makes
    item = weight_set(spec, variant)
    # Parts of a fused projection are views of one tensor, which the format does not allow.
    tensors = {key: tensor.contiguous().clone() for key, tensor in weights.tensors.items()}
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as err:
        raise UsageError(f"{target}: a part of its path is no folder") from err
    except OSError as err:
        raise (resource_error(err, target.parent) or err) from err
    with atomic_folder(target) as staging:
        with atomic_path(staging / TENSORS, n_bytes=n_bytes) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        for file, content in ((CONFIG, weights.config), (VOCABULARY, weights.vocabulary)):
            # In their own order: a vocabulary's may mean something.
            text = json.dumps(dict(content), ensure_ascii=False, allow_nan=False, indent=0)
            write_text(staging / file, text + "\n")
        manifest = Manifest(
            model=spec.name,
            name=name,
            variant=chosen.name,
            digest=digest,
            published=published,
            files={file: file_record(staging / file) for file in (CONFIG, VOCABULARY, TENSORS)},
            licence=item.licence,
            commercial_use=item.commercial_use,
            homepage=item.homepage,
            n_tensors=len(tensors),
            n_parameters=sum(tensor.numel() for tensor in tensors.values()),
            imported_at=datetime.now(UTC).isoformat(timespec="seconds"),
            scdrugmap=__version__,
        )
        write_json(staging / MANIFEST, manifest.model_dump(mode="json"))
        if target.exists():  # empty, or replaced as told
            remove(target)
    return target


def _home(spec: ModelSpec, name: str) -> Path:
    looked = places(spec, name)
    if not looked:
        raise UsageError("there is no folder to keep weights in", hint="name one with -o")
    return looked[0]


def _changed(pinned: Manifest, published: Mapping[str, FileRecord]) -> str:
    names = sorted(pinned.published.keys() | published.keys())
    changed = [name for name in names if pinned.published.get(name) != published.get(name)]
    return f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'}"


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
