"""Make one h5ad file with labels of the files of a GEO series, by a recipe."""

from __future__ import annotations

import fnmatch
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.download import hash_file
from scdrugmap.data.gene_rows import read_gene_rows
from scdrugmap.data.hdf5_writing import write_h5ad
from scdrugmap.data.recipe import Annotations, Recipe, Source, read_recipe
from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path, canonical_json, check_output, check_room, scratch_folder
from scdrugmap.progress import say
from scdrugmap.system_errors import resource_error

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

RECORD = "prepare"
THEIR_WORDS = "response_published"
"""Column with the response in the words of the series; ``response`` has ours."""

_TENX = ("matrix.mtx", "barcodes.tsv", "features.tsv", "genes.tsv")
_FEWEST_SHARED = 0.5
_MOST_LISTED = 6


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes
    ----------
    n_cells, n_genes : int
    labels : dict of str to int
        Cells per label; ``""``: without one.
    """

    n_cells: int
    n_genes: int
    labels: dict[str, int]


def prepare_series(
    source: str | Path,
    folder: Path,
    output: Path,
    *,
    accept_draft: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Prepared:
    """Make an h5ad file of a series' files.

    Parameters
    ----------
    source : str or Path
        Accession with a recipe, or file of a recipe.
    folder : Path
        Where ``scdrugmap datasets fetch`` has put the files.
    output : Path
    accept_draft : bool
        Take a recipe that nobody has checked against a public text.
    overwrite, quiet : bool

    Raises
    ------
    UsageError
        There is no such recipe or folder, or it is a draft and not accepted.
    DataError
        A file is absent, there twice, or damaged; cells without annotation; no shared gene.
    """
    recipe = read_recipe(source)
    if recipe.draft and not accept_draft:
        raise UsageError(
            f"the recipe for {recipe.accession} is a draft: no public text was found that names "
            "its samples",
            hint="read it (`scdrugmap datasets recipe`), check its labels, and add --accept-draft",
        )
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder",
            hint=f"scdrugmap datasets fetch {recipe.accession} -o {folder}",
        )
    check_output(output, overwrite=overwrite)
    if recipe.draft:
        say(f"Notice: {recipe.accession} is made by a draft: labels are unchecked", quiet=quiet)
    for remark in recipe.remarks:
        say(f"Notice: {' '.join(remark.split())}", quiet=quiet)
    used: dict[str, str] = {}
    pieces = []
    for part in recipe.sources:
        with _files(part, folder, output, used) as paths:
            pieces.append(_read(part, paths, output))
        say(f"{part.file}: {pieces[-1].n_obs:,} cells, {pieces[-1].n_vars:,} genes", quiet=quiet)
    adata = _join(pieces, recipe, quiet=quiet)
    if recipe.annotations is not None:
        _annotate(adata, recipe.annotations, folder, used)
    _finish(adata, recipe, used)
    with atomic_path(output) as temporary:
        write_h5ad(adata, temporary, compression="gzip")
    labels = adata.obs["response"].astype(object).fillna("").value_counts()
    return Prepared(adata.n_obs, adata.n_vars, {str(k): int(v) for k, v in labels.items()})


@contextmanager
def _files(part: Source, folder: Path, output: Path, used: dict[str, str]) -> Iterator[list[Path]]:
    """Give the files of a part; those of an archive lie in a temporary folder beside the output."""
    if not part.archive:
        paths = _matching(part, [p for p in folder.iterdir() if p.is_file()], folder)
        used.update({path.name: hash_file(path) for path in paths})
        yield paths
        return
    (archive,) = _one([p for p in folder.iterdir() if p.is_file()], part.archive, folder)
    if archive.name not in used:
        used[archive.name] = hash_file(archive)
    with scratch_folder(output) as place:
        _unpack(archive, part.file, place)
        yield _matching(part, list(place.iterdir()), archive)


def _unpack(archive: Path, pattern: str, place: Path) -> None:
    """Copy the plain files of an archive whose name fits; nothing else of it is used."""
    try:
        with tarfile.open(archive) as tar:
            members = [m for m in tar.getmembers() if m.isfile()]
            chosen = [m for m in members if fnmatch.fnmatchcase(Path(m.name).name, pattern)]
            check_room(place / "x", sum(member.size for member in chosen))
            for member in chosen:
                content = tar.extractfile(member)
                assert content is not None  # plain files have content
                with content, (place / Path(member.name).name).open("xb") as target:
                    shutil.copyfileobj(content, target)
    except (tarfile.TarError, EOFError, FileExistsError) as err:
        raise DataError(
            f"{archive} is damaged or truncated: {' '.join(str(err).split())}",
            hint="move it away and fetch it again",
        ) from err


def _matching(part: Source, paths: Sequence[Path], where: Path) -> list[Path]:
    if part.layout != "10x_folder":
        return _one(paths, part.file, where)
    found = [path for path in paths if fnmatch.fnmatchcase(path.name, part.file)]
    kinds = [kind for path in found for kind in _TENX if _is_kind(path.name, kind)]
    if len(found) != 3 or len(set(kinds)) != 3:
        raise DataError(
            f"{where}: {part.file} names {len(found)} files, expected matrix, features and "
            "barcodes",
            hint=_there(paths),
        )
    return found


def _is_kind(name: str, kind: str) -> bool:
    return name.removesuffix(".gz").endswith(kind)


def _one(paths: Sequence[Path], pattern: str, where: Path) -> list[Path]:
    found = [path for path in paths if fnmatch.fnmatchcase(path.name, pattern)]
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise DataError(f"{where} has {what} {pattern}, expected one", hint=_there(paths))
    return found


def _there(paths: Sequence[Path]) -> str:
    names = sorted(path.name for path in paths)
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return f"it has: {', '.join(names[:_MOST_LISTED]) or 'nothing'}{more}"


def _read(part: Source, paths: Sequence[Path], output: Path) -> AnnData:
    import anndata
    import pandas as pd

    if part.layout == "genes_in_rows":
        table = read_gene_rows(paths[0], skip_after_header=part.skip_after_header)
        adata = anndata.AnnData(
            table.values,
            obs=pd.DataFrame(index=pd.Index(table.cells, dtype=object)),
            var=pd.DataFrame(index=pd.Index(table.genes, dtype=object)),
        )
    else:
        adata = _converted(part, paths, output)
    if not adata.var_names.is_unique:
        adata = _first_of_each(adata)
    for column, value in part.obs.items():
        adata.obs[column] = value
    return adata


def _converted(part: Source, paths: Sequence[Path], output: Path) -> AnnData:
    """Read what `scdrugmap convert` reads."""
    import anndata

    from scdrugmap.data.convert import convert

    with scratch_folder(output) as place:
        source = paths[0]
        if part.layout == "10x_folder":
            source = place / "10x"
            source.mkdir()
            for path in paths:
                kind = next(kind for kind in _TENX if _is_kind(path.name, kind))
                shutil.copyfile(path, source / (kind + (".gz" if path.suffix == ".gz" else "")))
        convert(source, place / "cells.h5ad", compress=False, quiet=True)
        return anndata.read_h5ad(place / "cells.h5ad")


def _first_of_each(adata: AnnData) -> AnnData:
    """Number genes of one name, as every later step joins them: name, name-1, ..."""
    adata.var_names_make_unique()
    return adata


def _join(pieces: Sequence[AnnData], recipe: Recipe, *, quiet: bool) -> AnnData:
    """Put the samples below each other, over the genes that all of them have."""
    import anndata

    if len(pieces) > 1 or "sample" in pieces[0].obs:
        for piece in pieces:
            if "sample" in piece.obs:
                piece.obs_names = [
                    f"{sample}:{name}"
                    for sample, name in zip(piece.obs["sample"], piece.obs_names, strict=True)
                ]
    shared = set.intersection(*(set(piece.var_names) for piece in pieces))
    fewest = min(piece.n_vars for piece in pieces)
    if len(shared) < _FEWEST_SHARED * fewest:
        raise DataError(
            f"{recipe.accession}: {len(shared):,} genes are in all of its {len(pieces)} files, of "
            f"{fewest:,} in the smallest: their names do not fit",
            hint="the files name genes differently, or the recipe mixes two kinds of files",
        )
    if len(shared) < max(piece.n_vars for piece in pieces):
        say(
            f"Notice: the {len(shared):,} genes that all files have are kept; filling the others "
            "with zeros would tell the samples apart",
            quiet=quiet,
        )
    if len(pieces) == 1:
        return pieces[0]
    joined = anndata.concat(pieces, join="inner", merge=None)
    if not joined.obs_names.is_unique:
        repeated = joined.obs_names[joined.obs_names.duplicated()][0]
        raise DataError(
            f"{recipe.accession}: the cell {repeated!r} is in two files",
            hint="give each source of the recipe a sample of its own",
        )
    return joined


def _annotate(adata: AnnData, annotations: Annotations, folder: Path, used: dict[str, str]) -> None:
    """Add the columns of a table with a row per cell."""
    (path,) = _one([p for p in folder.iterdir() if p.is_file()], annotations.file, folder)
    used[path.name] = hash_file(path)
    table = _read_annotations(path, annotations)
    missing = adata.obs_names.difference(table.index)
    if len(missing):
        raise DataError(
            f"{path.name}: {len(missing):,} of {adata.n_obs:,} cells have no row ({missing[0]!r}, "
            "...)",
            hint="is it the table of these cells?",
        )
    for ours in annotations.columns:
        adata.obs[ours] = table.loc[adata.obs_names, ours].to_numpy(object)


def _read_annotations(path: Path, annotations: Annotations) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_csv(
            path,
            sep=annotations.separator,
            skiprows=annotations.skip_rows,
            encoding=annotations.encoding,
            dtype=str,
            keep_default_na=False,
        )
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as err:
        damaged = DataError(
            f"{path.name} cannot be read as a table: {' '.join(str(err).split())}",
            hint="fetch it again, or mend the recipe",
        )
        raise (resource_error(err, path) or damaged) from err
    wanted = [annotations.cell, *annotations.columns.values(), *annotations.rows]
    absent = [column for column in wanted if column not in table]
    if absent:
        raise DataError(
            f"{path.name} has no column {absent[0]!r}",
            hint=f"it has: {', '.join(table.columns[:_MOST_LISTED])}, ...",
        )
    for column, pattern in annotations.rows.items():
        table = table[table[column].str.match(pattern)]
    table = table.set_index(table[annotations.cell].str.strip())
    if not table.index.is_unique:
        repeated = table.index[table.index.duplicated()][0]
        raise DataError(f"{path.name}: the cell {repeated!r} has two rows")
    return pd.DataFrame(
        {ours: table[theirs].str.strip() for ours, theirs in annotations.columns.items()}
    )


def _finish(adata: AnnData, recipe: Recipe, used: dict[str, str]) -> None:
    """Derive columns, translate the response, and note where all comes from."""
    import pandas as pd

    for ours, derived in recipe.derived.items():
        found = adata.obs[derived.column].astype(str).str.extract(derived.pattern, expand=False)
        adata.obs[ours] = found.to_numpy(object)
    for column, value in recipe.facts.items():
        adata.obs[column] = value
    adata.obs["accession"] = recipe.accession
    adata.obs[THEIR_WORDS] = adata.obs[recipe.label].astype(str)
    adata.obs["response"] = _translated(adata.obs[THEIR_WORDS], recipe)
    adata.obs = adata.obs.apply(lambda column: column.astype("category"))
    adata.obs = pd.DataFrame(adata.obs, index=adata.obs_names.astype(object))
    adata.uns["scdrugmap"] = {
        RECORD: canonical_json(
            {
                "recipe": recipe.model_dump(mode="json"),
                "recipe_sha256": recipe.digest(),
                "files": used,
            }
        )
    }


def _translated(words: pd.Series, recipe: Recipe) -> np.ndarray:
    """Return our word for each response; None where the recipe leaves cells without one."""
    from scdrugmap.data.labels import RESISTANT, SENSITIVE

    meaning: dict[str, str | None] = dict.fromkeys(map(_folded, recipe.drop))
    meaning |= dict.fromkeys(map(_folded, recipe.sensitive), SENSITIVE)
    meaning |= dict.fromkeys(map(_folded, recipe.resistant), RESISTANT)
    unknown = sorted({word for word in words if _folded(word) not in meaning})
    if unknown:
        raise DataError(
            f"{recipe.accession}: the response {unknown[0]!r} is not in the recipe "
            f"(of {len(unknown)} such words)",
            hint="name each under sensitive, resistant or drop",
        )
    return np.array([meaning[_folded(word)] for word in words], object)


def _folded(word: str) -> str:
    return re.sub(r"\s+", " ", word.strip()).casefold()
