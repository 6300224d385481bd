"""Published UCE folders (``model_files``) to our names, with a table of encoded tokens.

The published token table has a vector of 5120 numbers for each gene of eight species. The network
reads what its token encoder makes of them, which is the same for every cell: so that is computed
here, for the species whose files are there, and neither vectors nor encoder are needed again.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from scdrugmap.errors import ScDrugMapWarning, WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights, load_strict
from scdrugmap.plugin import Variant
from scdrugmap_plugin_uce import CHECKPOINTS, LAYERS, SIZES, SPECIES, protein_file
from scdrugmap_plugin_uce.model import TABLE, TokenEncoder
from scdrugmap_plugin_uce.tokenizer import N_SPECIALS

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_ROWS, PUBLISHED_CHROMOSOME = 145_469, 143_574
"""Rows of the published token table, and the first of them that is a chromosome (hard-coded in the
original)."""

_PROTEINS, _ENCODER = "proteins", "encoder."
_LAYER, _OURS = r"transformer_encoder\.layers\.(\d+)\.", r"layers.\1."

KEYS = KeyMap(
    [
        (r"pe_embedding\.weight", _PROTEINS),
        (r"pos_encoder\.pe", "positions"),
        (r"encoder\.0\.(weight|bias)", r"encoder.linear.\1"),
        (r"encoder\.2\.(weight|bias)", r"encoder.norm.\1"),
        (
            _LAYER + r"self_attn\.in_proj_(weight|bias)",
            tuple(_OURS + rf"attention.{part}_proj.\2" for part in "qkv"),
        ),
        (_LAYER + r"self_attn\.out_proj\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"(linear1|linear2)\.(weight|bias)", _OURS + r"feed_forward.\2.\3"),
        (_LAYER + r"(norm1|norm2)\.(weight|bias)", _OURS + r"\2.\3"),
        (r"decoder\.([012])\.0\.(weight|bias)", r"decoder.\1.linear.\2"),
        (r"decoder\.([012])\.1\.(weight|bias)", r"decoder.\1.norm.\2"),
        (r"decoder\.3\.(weight|bias)", r"decoder.3.\1"),
        # The head of pre-training, which predicts genes from embeddings.
        (r"(?:binary_decoder|gene_embedding_layer)\..*", None),
    ]
)

_COLUMNS = ("gene_symbol", "chromosome", "start", "species")
# What pandas, with which the original reads the table, takes for a missing value.
_MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>"})
_TOKENS_AT_ONCE = 4096


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it, with the species whose files are there.

    Raises
    ------
    WeightsError
        A file is missing or damaged, is of the other checkpoint, or does not fit the others.
    """
    name = _checkpoint(folder, variant)
    source = f"{folder}/{name}"
    published = folder.torch(name)
    if not isinstance(published, dict):
        raise WeightsError(f"{source} holds a {type(published).__name__}, not tensors")
    tensors = KEYS.apply(published, source)
    config = _config(tensors, variant, source)
    proteins = tensors.pop(_PROTEINS)
    vocabulary = _vocabulary(folder, len(proteins))
    parts = [
        proteins[:N_SPECIALS],
        *(
            proteins[genes["first"] : genes["first"] + len(genes["symbols"])]
            for genes in vocabulary["species"].values()
        ),
        proteins[vocabulary["chromosome_first"] :],
    ]
    encoder = TokenEncoder(proteins.shape[1], config["dim"])
    names = [key for key in tensors if key.startswith(_ENCODER)]
    load_strict(encoder, {key.removeprefix(_ENCODER): tensors.pop(key) for key in names}, source)
    with torch.no_grad():
        tensors[TABLE] = torch.cat(
            [encoder(some.float()) for part in parts for some in part.split(_TOKENS_AT_ONCE)]
        )
    tensors["positions"] = tensors["positions"].squeeze(1)  # a batch of one, in the original
    return Weights(config, vocabulary, tensors, source)


def _checkpoint(folder: PublishedFolder, variant: Variant) -> str:
    name = CHECKPOINTS[variant.name]
    for other, file in CHECKPOINTS.items():
        if other != variant.name and folder.names(file) and not folder.names(name):
            raise WeightsError(
                f"{folder}: {name} is missing; there is {file}",
                hint=f"that is another variant: choose it with --set variant={other} (or, of an import, "
                f"--variant {other})",
            )
    return name


def _config(tensors: Mapping[str, Tensor], variant: Variant, source: str) -> dict[str, Any]:
    """Read sizes off the shapes."""
    shapes = {
        key: tuple(tensors[key].shape)
        for key, n_axes in (
            (_PROTEINS, 2),
            ("positions", 3),
            ("encoder.linear.weight", 2),
            ("layers.0.feed_forward.linear1.weight", 2),
            ("decoder.0.linear.weight", 2),
            ("decoder.3.weight", 2),
        )
        if key in tensors and tensors[key].ndim == n_axes
    }
    if len(shapes) < 6 or shapes["encoder.linear.weight"][1] != shapes[_PROTEINS][1]:
        raise WeightsError(
            f"{source}: these tensors, of which sizes are read, are missing or do not fit: "
            "pe_embedding.weight, pos_encoder.pe, encoder.0.weight, decoder.0.0.weight, "
            "decoder.3.weight or transformer_encoder.layers.0.linear1.weight",
            hint="is this the file of another model?",
        )
    found = (re.match(r"layers\.(\d+)\.", key) for key in tensors)
    n_layers = len({match[1] for match in found if match})
    for other, n_other in LAYERS.items():
        if n_layers == n_other and other != variant.name:
            raise WeightsError(
                f"{source} has {n_layers} layers: it is the {other} checkpoint under the file "
                f"name of {variant.name}",
                hint="their embeddings are not comparable: rename the file, and choose that variant",
            )
    return {
        "dim": shapes["encoder.linear.weight"][0],
        "hidden": shapes["layers.0.feed_forward.linear1.weight"][0],
        "decoder_dim": shapes["decoder.0.linear.weight"][0],
        "out_dim": shapes["decoder.3.weight"][0],
        "n_layers": n_layers,
        "n_positions": shapes["positions"][0],
        "dropout": SIZES["dropout"],
    }


def _vocabulary(folder: PublishedFolder, n_rows: int) -> dict[str, Any]:
    """Find out which row of the token table is which gene or chromosome."""
    codes, places = _chromosomes(folder)
    chromosome_first = _chromosome_first(folder, n_rows, len(codes))
    if chromosome_first + len(codes) > n_rows:
        raise WeightsError(
            f"{folder}: species_chrom.csv has {len(codes):,} chromosomes; the token table has room "
            f"for {n_rows - chromosome_first:,}",
            hint="all files must come from one download",
        )
    offsets = _offsets(folder, chromosome_first)
    gone = sorted(set(offsets) - {name for name, _ in places})
    if gone:
        raise WeightsError(
            f"{folder}: species_chrom.csv has no genes of {', '.join(gone)}, which "
            "species_offsets.pkl lists: chromosomes are numbered over all species",
            hint="use the table of all species, as published",
        )
    borders = sorted([*offsets.values(), chromosome_first])
    species: dict[str, Any] = {}
    for name in SPECIES:
        if name not in offsets or not folder.names(protein_file(name)):
            continue
        first = offsets[name]
        n_genes = borders[borders.index(first) + 1] - first
        symbols = _symbols(folder, name, n_genes)
        located = [places.get((name, symbol)) for symbol in symbols]
        n_lost = located.count(None)
        if n_lost:
            warnings.warn(
                f"{folder}: {n_lost:,} of {len(symbols):,} genes of {name} have no chromosome in "
                "species_chrom.csv and are left out",
                ScDrugMapWarning,
                stacklevel=2,
            )
        species[name] = {
            "first": first,
            "symbols": symbols,
            "chromosomes": [-1 if at is None else codes[at[0]] for at in located],
            "starts": [0 if at is None else at[1] for at in located],
        }
    if not species:
        raise WeightsError(
            f"{folder}: there is no list of genes of any species",
            hint=f"fetch at least {protein_file('human')}",
        )
    return {"species": species, "chromosome_first": chromosome_first}


def _chromosomes(
    folder: PublishedFolder,
) -> tuple[dict[str, int], dict[tuple[str, str], tuple[str, int]]]:
    """Read the number of each chromosome, and the place of each (species, symbol).

    Numbers count the chromosomes of all species of the file, sorted as text.
    """
    where = f"{folder}/species_chrom.csv"
    reader = csv.DictReader(io.StringIO(folder.text("species_chrom.csv")))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise WeightsError(f"{where} has no column {', '.join(missing)}")
    names: set[str] = set()
    places: dict[tuple[str, str], tuple[str, int]] = {}
    for row in reader:
        symbol, chromosome, start, species = (row[name] or "" for name in _COLUMNS)
        if chromosome in _MISSING:
            continue
        try:
            place = (f"{species}_{chromosome}", int(float(start)))
        except (ValueError, OverflowError) as err:
            raise WeightsError(
                f"{where}, line {reader.line_num}: start is {start!r}, not a number"
            ) from err
        names.add(place[0])
        places.setdefault((species, symbol.upper()), place)
    return {name: code for code, name in enumerate(sorted(names))}, places


def _chromosome_first(folder: PublishedFolder, n_rows: int, n_chromosomes: int) -> int:
    """Return the first row of the token table that is a chromosome."""
    if n_rows == PUBLISHED_ROWS:
        return PUBLISHED_CHROMOSOME
    if not folder.names("all_tokens.torch"):
        return n_rows - n_chromosomes
    genes = folder.torch("all_tokens.torch")
    if not isinstance(genes, torch.Tensor) or genes.ndim != 2 or len(genes) >= n_rows:
        raise WeightsError(
            f"{folder}/all_tokens.torch is no table of fewer rows than the checkpoint's {n_rows:,}",
            hint="token files of other species than the published ones are not supported",
        )
    return len(genes)


def _offsets(folder: PublishedFolder, end: int) -> dict[str, int]:
    """Read the first row of each species."""
    offsets = folder.pickle("species_offsets.pkl")
    where = f"{folder}/species_offsets.pkl"
    if not isinstance(offsets, dict):
        raise WeightsError(f"{where} holds a {type(offsets).__name__}, not a dictionary")
    for name, first in offsets.items():
        if type(first) is not int or not N_SPECIALS <= first < end:
            raise WeightsError(f"{where}: {name} begins at {first!r}, not at {N_SPECIALS} to {end}")
    if len(set(offsets.values())) != len(offsets):
        raise WeightsError(f"{where}: two species begin at the same row")
    return offsets


def _symbols(folder: PublishedFolder, species: str, n_genes: int) -> list[str]:
    """Read the genes of a species, in the order of their rows."""
    name = protein_file(species)
    proteins = folder.torch(name)
    if not isinstance(proteins, dict) or not all(isinstance(key, str) for key in proteins):
        raise WeightsError(f"{folder}/{name} holds no vectors by gene symbol")
    if len(proteins) != n_genes:
        raise WeightsError(
            f"{folder}/{name} lists {len(proteins):,} genes; species_offsets.pkl leaves "
            f"{n_genes:,} rows for {species}",
            hint="all files must come from one download",
        )
    return list(dict.fromkeys(symbol.upper() for symbol in proteins))
