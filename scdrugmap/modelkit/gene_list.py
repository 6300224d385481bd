"""Read the genes of a model whose checkpoint does not name them, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import DataError, WeightsError

if TYPE_CHECKING:
    from scdrugmap.modelkit.published import PublishedFolder


def read_gene_list(
    folder: PublishedFolder, names: Sequence[str], hint: str
) -> tuple[str, list[str]]:
    """Read the first list of genes that is there.

    Parameters
    ----------
    folder : PublishedFolder
    names : sequence of str
        Files that may hold the list, best first: ``.h5ad`` (only the names of its columns are
        read), ``.json`` (a list, or a dictionary of positions), or text of a gene a line.
    hint : str
        How to come by the list, for the error that there is none.

    Returns
    -------
    name : str
        The file.
    genes : list of str
        Distinct names.

    Raises
    ------
    WeightsError
        There is no list, or it is damaged, has gaps, or names a gene twice.
    """
    try:
        name = folder.first(*names)
    except WeightsError as err:
        raise WeightsError(
            f"{err.message}: the order of the genes is not known", hint=hint
        ) from err
    where = f"{folder}/{name}"
    if name.endswith(".h5ad"):
        genes: Sequence[Any] = _columns_of(folder, name)
    elif name.endswith(".json"):
        genes = _ordered(folder.json(name), where)
    else:
        genes = folder.text(name).splitlines()
    seen: set[str] = set()
    for place, gene in enumerate(genes):
        if not isinstance(gene, str) or not gene.strip():
            raise WeightsError(f"{where}: gene {place + 1} is {gene!r}, not a name")
        if gene in seen:
            raise WeightsError(f"{where}: {gene} occurs twice")
        seen.add(gene)
    return name, list(genes)


def _columns_of(folder: PublishedFolder, name: str) -> list[str]:
    """Read the names of the columns of an h5ad file, and nothing else of it."""
    from scdrugmap.data.frames import read_frame
    from scdrugmap.data.inspect import open_scanned, scan

    try:
        found = scan(folder.path(name))
        if "var" not in found:
            raise WeightsError(f"{folder}/{name} has no var, the table of its genes")
        with open_scanned(found) as file:
            return [str(gene) for gene in read_frame(file["var"], "var", name).index]
    except DataError as err:
        raise WeightsError(f"{folder}: {err.message}", hint=err.hint) from err


def _ordered(content: Any, where: str) -> Sequence[Any]:
    """Return the genes of a list, or of a dictionary of their positions."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise WeightsError(f"{where} holds a {type(content).__name__}, not genes by position")
    places = content.values()
    whole = all(type(place) is int for place in places)
    if not whole or sorted(places) != list(range(len(content))):
        raise WeightsError(f"{where}: positions are not 0 to {len(content) - 1}, each once")
    return sorted(content, key=content.__getitem__)
