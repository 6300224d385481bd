"""Read a folder of weights in either layout, and say which weights they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scdrugmap.errors import PluginError, ResourceError, WeightsError
from scdrugmap.files import hash_json
from scdrugmap.manifest import CONFIG, MANIFEST, TENSORS, VOCABULARY, FileRecord, read_manifest
from scdrugmap.modelkit.published import OpenedFile, PublishedFolder, Weights, check_unchanged
from scdrugmap.specs import ModelSpec, Options, Variant, WeightSet, load_object
from scdrugmap.weight_places import RANDOM, weight_set

if TYPE_CHECKING:
    from scdrugmap.modelkit.contract import CellModel

_TOO_LARGE = re.compile("not enough memory|can't allocate memory|[Oo]verflow|too large")
"""What torch says of sizes that do not fit into memory, or into a number."""

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
    opened: Mapping[str, OpenedFile] = field(default_factory=dict)
    """What was read just now, perhaps beside the folder, and what it was."""
    notices: tuple[str, ...] = ()
    """What a user should be told, one line each."""

    @property
    def untrained(self) -> bool:
        """Whether the tensors are random although the model has published ones."""
        return self.source == "random" or self.randomize is not None


RANDOM_WEIGHTS = WeightsRecord("random", None, RANDOM, _RANDOM_LABEL)
NO_WEIGHTS = WeightsRecord("none", None, "none", "needs no weights")


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
    weights, opened = read_published(spec, folder, spec.variant(variant))
    published = {name: file.record for name, file in opened.items()}
    item = weight_set(spec, variant)
    known = {file.path: file.sha256 for file in item.files if file.sha256}
    other = [name for name, sha256 in known.items() if _differs(published, name, sha256)]
    notices: tuple[str, ...] = ()
    if other:
        why = "your own training, or a new upload?"
        notices = (f"{folder}: {', '.join(other)}: not as others have seen {item.name}: {why}",)
    digest = digest_of(spec, spec.variant(variant).name, published)
    record = _record("published", folder, digest, folder.name, item, published, notices)
    return weights, replace(record, opened=opened)


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


def digest_of(spec: ModelSpec, variant: str, published: Mapping[str, FileRecord]) -> str:
    """Return the one hash by which the weights that some published files make are known."""
    files = {name: record.sha256 for name, record in published.items()}
    return hash_json({"model": spec.name, "variant": variant, "files": files})


def read_published(
    spec: ModelSpec, folder: Path, variant: Variant
) -> tuple[Weights, dict[str, OpenedFile]]:
    """Let the plugin read a folder as its authors ship it.

    Returns
    -------
    weights : Weights
    opened : dict of str to OpenedFile
        The files that it read, by name.

    Raises
    ------
    PluginError
        The plugin has no reader.
    WeightsError
        A file is missing, damaged or of another model.
    """
    if spec.weights_reader is None:
        raise PluginError(
            f"model {spec.name} cannot read weights: its spec names no weights_reader",
            hint="update the plugin, or use --weights random",
        )
    published = PublishedFolder(folder)
    weights: Weights = load_object(spec.weights_reader)(published, variant)
    return weights, dict(sorted(published.opened.items()))


def build_network(
    spec: ModelSpec,
    options: Options,
    weights: Weights,
    opened: Mapping[str, OpenedFile],
    seed: int = 0,
) -> CellModel:
    """Make a model of weights, which checks every tensor, and see that they are what was hashed.

    Raises
    ------
    WeightsError
        A tensor is missing, too many, or does not fit; or a file was changed meanwhile.
    ResourceError
        The network that the configuration describes does not fit into memory.
    """
    try:
        built: CellModel = load_object(spec.factory)(options, weights, seed)
    except (MemoryError, OverflowError, RuntimeError, TypeError) as err:
        if not isinstance(err, MemoryError) and not _TOO_LARGE.search(str(err)):
            raise
        raise ResourceError(
            f"{weights.source}: the network that it describes does not fit into memory",
            hint="were the sizes in its configuration edited? If not, use a larger machine",
        ) from err
    check_unchanged(opened)
    return built


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
        expected, found = manifest.files[name], here.record(name)
        if expected != found:
            raise WeightsError(
                f"{folder / name} is not the file that was imported: "
                f"sha256 {found.sha256[:16]}, expected {expected.sha256[:16]}",
                hint="it was damaged or edited: import the weights again",
            )
    weights = Weights(
        here.json(CONFIG), here.json(VOCABULARY), here.safetensors(TENSORS), str(folder)
    )
    item = weight_set(spec, manifest.variant)
    name, published = manifest.name, manifest.published
    record = _record("imported", folder, manifest.digest, name, item, published)
    return weights, replace(record, opened=here.opened)
