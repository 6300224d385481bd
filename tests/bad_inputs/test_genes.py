"""Gene names that cannot be used, or only with a word about it (cases 64 to 77)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import gene_table, read_genes
from scdrugmap.errors import DataError

SYMBOLS = list(gene_table().names("symbol")[:200])
WORDS = [name for name in gene_table().names("symbol") if name.isalpha() and name.isupper()][:87]


def var(names: list, **columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def refused(names: list, **arguments: object) -> DataError:
    with pytest.raises(DataError) as error:
        read_genes(var(names), where="cells.h5ad", **arguments)
    assert error.value.exit_code == 3
    assert error.value.message.startswith("cells.h5ad: ")
    assert error.value.hint
    return error.value


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_case_64_duplicate_symbols_are_summed_with_a_notice() -> None:
    counts = csr_matrix(np.array([[1, 2, 4], [0, 0, 8]], np.float32))
    adata = AnnData(counts, var=var(["EGFR", "TP53", "EGFR"]))

    with open_cells(adata) as cells:
        assert cells.rows(np.arange(2)).toarray().tolist() == [[5, 2], [8, 0]]
        assert any("1 columns repeat a gene and were summed" in note for note in cells.notices)


def test_case_65_ensembl_ids_with_versions_are_known() -> None:
    mapping = read_genes(var(["ENSG00000146648.21", "ENSG00000141510.19"]))

    assert mapping.genes.symbol.tolist() == ["EGFR", "TP53"]


def test_case_66_ensembl_ids_get_symbols_with_a_notice() -> None:
    mapping = read_genes(var(["ENSG00000146648", "ENSG00000999999"]), where="cells.h5ad")

    assert mapping.gene_id == "ensembl"
    assert mapping.notices == ("cells.h5ad: 1 of 2 Ensembl ids have a current symbol",)


def test_case_67_mouse_symbols_are_refused_and_not_taken_for_human_ones() -> None:
    error = refused([name.capitalize() for name in WORDS] + SYMBOLS[:13])

    assert "the gene names look like mouse: 87% title case (Agrn, " in error.message
    assert "orthologues" in error.hint


def test_case_67_mouse_ensembl_ids_are_refused() -> None:
    error = refused([f"ENSMUSG{i:011d}" for i in range(10)])

    assert "100% of the gene names are Ensembl ids of mouse" in error.message


def test_case_68_entrez_numbers_are_refused() -> None:
    assert "look like Entrez ids" in refused(["1956", "7157", "3845", "EGFR"]).message


def test_case_68_row_numbers_are_refused_as_such() -> None:
    assert "are row numbers (0, 1, 2)" in refused(["0", "1", "2"]).message


@pytest.mark.parametrize("date", ["1-Mar", "2-Sep", "Mar-01", "2021-03-01", "01/03/2021"])
def test_case_69_spreadsheet_dates_stay_unknown_with_a_notice(date: str) -> None:
    mapping = read_genes(var(["EGFR", date]), where="cells.h5ad")

    assert mapping.genes.symbol.tolist() == ["EGFR", ""]
    assert f"1 gene names are dates made by a spreadsheet ({date})" in mapping.notices[0]


def test_case_70_names_without_any_known_gene_are_refused() -> None:
    error = refused([f"probe{i}" for i in range(30)])

    assert "none of the 30 gene names is a known human gene (probe0, " in error.message
    assert "--transpose" in error.hint


@pytest.mark.parametrize("names", [["EGFR", b"TP\xff3"], [b"\xe9GFR", "TP53"]])
def test_case_72_names_that_are_not_utf8_are_refused_with_their_row(names: list) -> None:
    row = next(i for i, name in enumerate(names) if isinstance(name, bytes))

    assert f"the gene name in row {row} of var is not UTF-8" in refused(names).message


@pytest.mark.parametrize("name", ["", "  ", "nan", float("nan"), None])
def test_case_73_empty_names_are_refused_with_their_row(name: object) -> None:
    error = refused(["EGFR", name, "TP53", name])

    assert "2 gene names are empty or NaN, the first in row 1 of var" in error.message


@pytest.mark.parametrize("prefix", ["GRCh38_", "GRCh38______", "hg19_"])
def test_case_74_the_name_of_the_genome_is_taken_off(prefix: str) -> None:
    mapping = read_genes(var([f"{prefix}EGFR", f"{prefix}TP53"]), where="cells.h5ad")

    assert mapping.genes.symbol.tolist() == ["EGFR", "TP53"]
    assert "the genome was taken off 2 gene names" in mapping.notices[0]


def test_case_74_mouse_genes_of_a_mixed_reference_are_left_out() -> None:
    mapping = read_genes(var(["GRCh38_EGFR", "mm10_Egfr", "mm10_Trp53"]), where="cells.h5ad")

    assert mapping.column.tolist() == [0, -1, -1]
    assert mapping.counts["dropped"] == 2
    assert "2 mouse genes are left out" in mapping.notices[0]


def test_case_74_a_file_of_mouse_genes_only_is_refused() -> None:
    assert "look like mouse" in refused([f"mm10_{name.capitalize()}" for name in WORDS]).message


def test_case_75_genes_in_rows_are_refused_with_the_option_that_helps() -> None:
    barcodes = [f"AAAC{i}-1" for i in range(60)]

    error = refused(barcodes, obs_names=SYMBOLS)

    assert "the cells (" in error.message
    assert "are called like genes" in error.message
    assert error.hint == "if genes are in rows, add --transpose"


def test_case_76_the_order_of_genes_changes_no_meaning() -> None:
    forward = read_genes(var(["FYB", "TP53", "GFP", "FYB1"]))
    backward = read_genes(var(["FYB1", "GFP", "TP53", "FYB"]))

    assert set(forward.genes.identity()) == set(backward.genes.identity())


def test_case_77_symbols_in_lower_case_are_refused_with_the_remedy() -> None:
    error = refused([name.lower() for name in SYMBOLS])

    assert "in lower case" in error.message
    assert "str.upper()" in error.hint


def test_generic_names_are_not_mistaken_for_another_species() -> None:
    assert "none of the 20" in refused([f"Gene{i}" for i in range(20)]).message
    assert "none of the 20" in refused([f"gene{i}" for i in range(20)]).message


def test_a_kind_that_was_asked_for_and_is_not_there_is_refused() -> None:
    assert "are no Ensembl ids" in refused(["EGFR"], gene_id="ensembl").message
    error = refused(["ENSG00000146648"], gene_id="symbol")
    assert "are Ensembl ids" in error.message
    assert "--gene-id ensembl" in error.hint
