"""Gene names that cannot be used, or only with a word about it (cases 64 to 77)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.genes import gene_table, read_genes
from scdrugmap.errors import DataError

SYMBOLS = list(gene_table().names("symbol")[:200])
WORDS = [name for name in gene_table().names("symbol") if name.isalpha() and name.isupper()][:87]


@pytest.fixture
def named(make):
    """Write a file whose genes are called so."""

    def write(names: list[str], counts: np.ndarray | None = None, **more):
        counts = make.counts(20, len(names)) if counts is None else counts
        return make.h5ad(counts=counts, var=pd.DataFrame(index=names), **more)

    return write


def told(cells, text: str) -> bool:
    return any(text in notice for notice in cells.notices)


def var(names: list) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(names, dtype=object))


@pytest.mark.case(64)
def test_duplicate_symbols_are_summed_with_a_notice(named, read):
    counts = np.array([[1, 2, 4], [0, 0, 8]], np.float32)
    cells, found = read(named(["EGFR", "TP53", "EGFR"], counts))
    assert found.tolist() == [[5, 2], [8, 0]]
    assert told(cells, "1 columns repeat a gene and were summed")


@pytest.mark.case(65)
def test_ensembl_ids_with_versions_are_known(named, read):
    cells, _ = read(named(["ENSG00000146648.21", "ENSG00000141510.19"]))
    assert cells.genes.symbol.tolist() == ["EGFR", "TP53"]


@pytest.mark.case(66)
def test_ensembl_ids_get_symbols_with_a_notice(named, read):
    cells, _ = read(named(["ENSG00000146648", "ENSG00000999999"]))
    assert cells.genes.symbol.tolist() == ["EGFR", ""]
    assert told(cells, "cells.h5ad: 1 of 2 Ensembl ids have a current symbol")


@pytest.mark.case(67)
def test_mouse_symbols_are_refused_and_not_taken_for_human_ones(named, refused):
    names = [name.capitalize() for name in WORDS] + SYMBOLS[:13]
    message = "the gene names look like mouse: 87% title case (Agrn, "
    refused(named(names), DataError, message, "orthologues")


def test_mouse_ensembl_ids_are_refused(named, refused):
    path = named([f"ENSMUSG{i:011d}" for i in range(10)])
    refused(path, DataError, "100% of the gene names are Ensembl ids of mouse", "human")


@pytest.mark.case(68)
def test_entrez_numbers_are_refused(named, refused):
    path = named(["1956", "7157", "3845", "EGFR"])
    refused(path, DataError, "look like Entrez ids", "symbols")


def test_row_numbers_are_refused_as_such(named, refused):
    refused(named(["0", "1", "2"]), DataError, "are row numbers (0, 1, 2)", "names")


@pytest.mark.case(69)
@pytest.mark.parametrize("date", ["1-Mar", "2-Sep", "Mar-01", "2021-03-01", "01/03/2021"])
def test_spreadsheet_dates_stay_unknown_with_a_notice(named, read, date):
    cells, _ = read(named(["EGFR", date]))
    assert cells.genes.symbol.tolist() == ["EGFR", ""]
    assert told(cells, f"1 gene names are dates made by a spreadsheet ({date})")


@pytest.mark.case(70)
def test_names_without_any_known_gene_are_refused(named, refused):
    path = named([f"probe{i}" for i in range(30)])
    message = "none of the 30 gene names is a known human gene (probe0, "
    refused(path, DataError, message, "--transpose")


@pytest.mark.case(71)
def test_fewer_known_genes_than_a_model_needs_are_refused_with_both_numbers(named, child, tmp_path):
    path, output = named([*SYMBOLS[:20], "probe"]), tmp_path / "o.h5ad"
    ended = child.cli(
        *("embed", path, "--model", "randproj", "--min-genes", 500, "-o", output),
    )
    assert ended.code == 3
    words = " ".join(ended.err.split())
    assert "Error: cells.h5ad: 20 of 21 genes match the randproj vocabulary (need 500)" in words
    assert not output.exists()


@pytest.mark.case(73)
@pytest.mark.parametrize("name", ["", "  ", "nan"])
def test_empty_names_are_refused_with_their_row(named, refused, name):
    message = "2 gene names are empty or NaN, the first in row 1 of var"
    refused(named(["EGFR", name, "TP53", name]), DataError, message, "name")


@pytest.mark.case(74)
@pytest.mark.parametrize("prefix", ["GRCh38_", "GRCh38______", "hg19_"])
def test_the_name_of_the_genome_is_taken_off(named, read, prefix):
    cells, _ = read(named([f"{prefix}EGFR", f"{prefix}TP53"]))
    assert cells.genes.symbol.tolist() == ["EGFR", "TP53"]
    assert told(cells, "the genome was taken off 2 gene names")


def test_mouse_genes_of_a_mixed_reference_are_left_out(named, read):
    cells, found = read(named(["GRCh38_EGFR", "mm10_Egfr", "mm10_Trp53"]))
    assert cells.genes.symbol.tolist() == ["EGFR"]
    assert found.shape == (20, 1)
    assert told(cells, "2 mouse genes are left out")


def test_a_file_of_mouse_genes_only_is_refused(named, refused):
    path = named([f"mm10_{name.capitalize()}" for name in WORDS])
    refused(path, DataError, "look like mouse", "orthologues")


@pytest.mark.case(75)
def test_genes_in_rows_are_refused_with_the_option_that_helps(named, refused, child):
    barcodes = [f"AAAC{i}-1" for i in range(60)]
    path = named(barcodes, np.ones((200, 60), np.float32), obs=pd.DataFrame(index=SYMBOLS))
    error = refused(path, DataError, "are called like genes", "if genes are in rows, add --trans")
    assert "the cells (" in error.message
    assert child.cli("check", path, "--transpose", "--no-models").code == 0


@pytest.mark.case(76)
def test_the_order_of_genes_changes_no_result(make, read):
    order = np.random.default_rng(1).permutation(30)
    names, counts = make.genes(), make.counts()
    here, _ = read(make.h5ad(counts=counts))
    there, _ = read(
        make.h5ad(
            "other.h5ad",
            counts=counts[:, order],
            var=pd.DataFrame(index=[names[i] for i in order]),
        )
    )
    assert here.fingerprints == there.fingerprints


@pytest.mark.case(77)
def test_symbols_in_lower_case_are_refused_with_the_remedy(named, refused):
    path = named([name.lower() for name in SYMBOLS])
    refused(path, DataError, "in lower case", "str.upper()")


@pytest.mark.case("O25")
def test_genes_of_one_name_and_cells_of_one_name_are_refused(make, named, refused):
    path = named(["G0"] * 30)
    refused(path, DataError, "none of the 30 gene names is a known human gene (G0", "HGNC")
    path = make.h5ad(obs=pd.DataFrame(index=["c"] * 20))
    refused(path, DataError, "19 cell names repeat ('c', ...)", "make the names unique")


@pytest.mark.parametrize("names", [["EGFR", b"TP\xff3"], [b"\xe9GFR", "TP53"]])
def test_names_in_memory_that_are_not_utf8_are_refused_with_their_row(names):
    row = next(i for i, name in enumerate(names) if isinstance(name, bytes))
    with pytest.raises(DataError, match=f"the gene name in row {row} of var is not UTF-8"):
        read_genes(var(names))


@pytest.mark.parametrize("name", [float("nan"), None])
def test_missing_names_in_memory_are_refused_with_their_row(name):
    with pytest.raises(DataError, match="2 gene names are empty or NaN, the first in row 1 of var"):
        read_genes(var(["EGFR", name, "TP53", name]))


def test_the_order_of_genes_changes_no_meaning():
    forward = read_genes(var(["FYB", "TP53", "GFP", "FYB1"]))
    backward = read_genes(var(["FYB1", "GFP", "TP53", "FYB"]))
    assert set(forward.genes.identity()) == set(backward.genes.identity())


@pytest.mark.parametrize("word", ["Gene", "gene"])
def test_generic_names_are_not_mistaken_for_another_species(named, refused, word):
    path = named([f"{word}{i}" for i in range(20)])
    refused(path, DataError, "none of the 20 gene names", "HGNC")


def test_a_kind_that_was_asked_for_and_is_not_there_is_refused(named, refused):
    refused(named(["EGFR"]), DataError, "are no Ensembl ids", "symbol", gene_id="ensembl")
    path = named(["ENSG00000146648"])
    refused(path, DataError, "are Ensembl ids", "--gene-id ensembl", gene_id="symbol")
