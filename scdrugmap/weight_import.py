"""Convert published weights once, and pin them: later loads are memory-mapped and touch no pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from scdrugmap import __version__
from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.files import atomic_folder, atomic_path, make_folder, write_json, write_text
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
from scdrugmap.modelkit.published import check_unchanged
from scdrugmap.plain import ascii_escapes
from scdrugmap.specs import ModelSpec
from scdrugmap.system_errors import resource_error
from scdrugmap.weight_places import place_to_keep, weight_set
from scdrugmap.weight_reading import build_network, digest_of, open_weights, read_published

_NAME = re.compile(r"\w[\w.-]*")  # it becomes the name of a folder, and stands in results


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
        The output exists and is no import, there is no place for it, or the name is none.
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
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for weights", hint="use letters, digits, dots, - and _"
        )
    target = Path(output) if output is not None else place_to_keep(spec, name)
    weights, opened = read_published(spec, Path(folder), chosen)
    published = {file: found.record for file, found in opened.items()}
    digest = digest_of(spec, chosen.name, published)
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
    build_network(spec, options, weights, opened)  # makes every check that loading makes
    item = weight_set(spec, variant)
    # Parts of a fused projection are views of one tensor, which the format does not allow.
    tensors = {key: tensor.contiguous().clone() for key, tensor in weights.tensors.items()}
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        make_folder(target.parent)
    except (FileExistsError, NotADirectoryError) as err:
        raise UsageError(f"{target}: a part of its path is no folder") from err
    except OSError as err:
        raise (resource_error(err, target.parent) or err) from err
    with atomic_folder(target, replace=True) as staging:  # it is empty, or replaced as told
        with atomic_path(staging / TENSORS, n_bytes=n_bytes) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        check_unchanged(opened)
        for file, content in ((CONFIG, weights.config), (VOCABULARY, weights.vocabulary)):
            # In their own order: a vocabulary's may mean something.
            text = json.dumps(dict(content), ensure_ascii=False, allow_nan=False, indent=0)
            write_text(staging / file, ascii_escapes(text) + "\n")
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
    return target


def _changed(pinned: Manifest, published: Mapping[str, FileRecord]) -> str:
    names = sorted(pinned.published.keys() | published.keys())
    changed = [name for name in names if pinned.published.get(name) != published.get(name)]
    return f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'}"
