"""10x files, 10x folders and tables of text become the same h5ad."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.io import mmwrite
from scipy.sparse import coo_matrix, csc_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.convert import convert, read_10x
from scdrugmap.data.genes import read_genes
from scdrugmap.data.text_table import read_layout
from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.testing import synthetic_adata

ANTIBODIES = ("CD3_TotalSeqB", "CD19_TotalSeqB")


@pytest.fixture
def cells() -> AnnData:
    adata = synthetic_adata(12, 40, seed=1)
    adata.var["gene_ids"] = synthetic_adata(12, 40, seed=1, gene_id="ensembl").var_names
    return adata


def features(adata: AnnData, *, antibodies: bool) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"id": adata.var["gene_ids"], "name": adata.var_names, "kind": "Gene Expression"}
    )
    extra = pd.DataFrame({"id": ANTIBODIES, "name": ANTIBODIES, "kind": "Antibody Capture"})
    return pd.concat([frame, extra]) if antibodies else frame


def counts(adata: AnnData, *, antibodies: bool) -> np.ndarray:
    """(features, cells), as 10x stores it."""
    genes = adata.X.toarray().T
    more = np.full((len(ANTIBODIES), adata.n_obs), 900.0)
    return np.vstack([genes, more]) if antibodies else genes


def write_h5(path: Path, adata: AnnData, *, antibodies: bool = False) -> Path:
    table, matrix = (
        features(adata, antibodies=antibodies),
        csc_matrix(counts(adata, antibodies=antibodies)),
    )
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(list(adata.obs_names), "S")
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices
        group["indptr"], group["shape"] = matrix.indptr, np.array(matrix.shape, np.int32)
        group["features/id"] = np.array(list(table["id"]), "S")
        group["features/name"] = np.array(list(table["name"]), "S")
        group["features/feature_type"] = np.array(list(table["kind"]), "S")
        group["features/genome"] = np.array(["GRCh38"] * len(table), "S")
    return path


def write_folder(
    folder: Path, adata: AnnData, *, antibodies: bool = False, packed: bool = True, prefix: str = ""
) -> Path:
    folder.mkdir(exist_ok=True)
    opened: Callable = gzip.open if packed else open
    end = ".gz" if packed else ""
    table = features(adata, antibodies=antibodies)
    with opened(folder / f"{prefix}features.tsv{end}", "wt") as handle:
        handle.write(table.to_csv(sep="\t", header=False, index=False))
    with opened(folder / f"{prefix}barcodes.tsv{end}", "wt") as handle:
        handle.write("\n".join(adata.obs_names) + "\n")
    matrix = coo_matrix(counts(adata, antibodies=antibodies).astype(int))
    with opened(folder / f"{prefix}matrix.mtx{end}", "wb") as handle:
        mmwrite(handle, matrix)
    return folder


def write_text(path: Path, adata: AnnData, separator: str = ",") -> Path:
    frame = adata.to_df().astype(int)
    frame.insert(0, "Condition", adata.obs["response"].astype(str))
    frame.insert(0, "Cell_barcode", adata.obs_names)
    frame.to_csv(path, sep=separator, index=False)
    return path


@pytest.mark.parametrize("antibodies", [False, True])
@pytest.mark.parametrize("kind", ["h5", "folder", "plain folder", "prefixed folder"])
def test_10x_becomes_h5ad_with_genes_only(
    kind: str, antibodies: bool, cells: AnnData, tmp_path: Path
) -> None:
    if kind == "h5":
        source = write_h5(tmp_path / "cells.h5", cells, antibodies=antibodies)
    else:
        source = write_folder(
            tmp_path / "run",
            cells,
            antibodies=antibodies,
            packed=kind != "plain folder",
            prefix="GSM1_" if kind == "prefixed folder" else "",
        )

    made = convert(source, tmp_path / "out.h5ad")
    adata = read_h5ad(tmp_path / "out.h5ad")

    assert (made.n_cells, made.n_genes) == (12, 40)
    assert list(adata.obs_names) == list(cells.obs_names)
    assert list(adata.var_names) == list(cells.var_names)
    assert list(adata.var["gene_ids"]) == list(cells.var["gene_ids"])
    assert (adata.X != cells.X).nnz == 0
    expected = "2 features of the kind Antibody Capture are left out (CD3_TotalSeqB, CD19"
    assert [expected in notice for notice in made.notices] == [True] * antibodies


def test_10x_read_directly_keeps_antibodies_for_the_gene_reader_to_leave_out(
    cells: AnnData, tmp_path: Path
) -> None:
    adata = read_10x(write_h5(tmp_path / "cells.h5", cells, antibodies=True))
    mapping = read_genes(adata.var, where="cells.h5")

    assert adata.n_vars == 42
    assert len(mapping.genes) == 40
    assert mapping.column[-2:].tolist() == [-1, -1]
    assert "2 features that are not genes are left out (Antibody Capture)" in mapping.notices[0]


def test_10x_of_the_old_layout_takes_the_human_genome(cells: AnnData, tmp_path: Path) -> None:
    matrix = csc_matrix(counts(cells, antibodies=False))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for genome in ("GRCh38", "mm10"):
            group = file.create_group(genome)
            group["barcodes"] = np.array(list(cells.obs_names), "S")
            group["data"], group["indices"] = matrix.data, matrix.indices
            group["indptr"], group["shape"] = matrix.indptr, np.array(matrix.shape)
            group["genes"] = np.array(list(cells.var["gene_ids"]), "S")
            group["gene_names"] = np.array(list(cells.var_names), "S")

    adata = read_10x(tmp_path / "old.h5")

    assert (adata.X != cells.X).nnz == 0
    assert set(adata.var["genome"]) == {"GRCh38"}


def test_repeated_symbols_of_10x_get_names_of_their_own(cells: AnnData, tmp_path: Path) -> None:
    cells.var_names = ["EGFR", "EGFR", *cells.var_names[2:]]

    adata = read_10x(write_folder(tmp_path / "run", cells))

    assert list(adata.var_names[:2]) == ["EGFR", "EGFR-1"]


def test_one_run_gives_the_same_cells_as_10x_scanpy_or_cellxgene_file(
    cells: AnnData, tmp_path: Path
) -> None:
    scanpy = cells.copy()
    scanpy.layers["counts"] = cells.X.copy()
    scanpy.X = cells.X.log1p()
    cellxgene = cells.copy()
    cellxgene.var = pd.DataFrame({"feature_name": cells.var_names}, index=cells.var["gene_ids"])
    cellxgene.raw = cellxgene.copy()
    cellxgene.X = cells.X.log1p()
    ways = [
        write_h5(tmp_path / "cells.h5", cells, antibodies=True),
        write_folder(tmp_path / "run", cells, antibodies=True),
        scanpy,
        cellxgene,
    ]

    for way in ways:
        with open_cells(way) as opened:
            rows = opened.rows(np.arange(12))
            assert opened.matrix.values == "counts"
            assert (rows != cells.X).nnz == 0
            assert opened.genes.digest() == read_genes(cells.var).genes.digest()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_becomes_h5ad(separator: str, packed: bool, cells: AnnData, tmp_path: Path) -> None:
    source = write_text(tmp_path / "cells.csv", cells, separator)
    if packed:
        data = source.read_bytes()
        source = tmp_path / "cells.csv.gz"
        source.write_bytes(gzip.compress(data))

    made = convert(source, tmp_path / "out.h5ad")
    adata = read_h5ad(tmp_path / "out.h5ad")

    assert (made.n_cells, made.n_genes) == (12, 40)
    assert list(adata.obs_names) == list(cells.obs_names)
    assert list(adata.var_names) == list(cells.var_names)
    assert list(adata.obs["Condition"]) == list(cells.obs["response"])
    assert adata.X.dtype == np.float32
    assert (adata.X != cells.X).nnz == 0


def test_a_table_is_read_in_pieces_with_the_same_result(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_text(tmp_path / "cells.csv", cells)
    monkeypatch.setattr("scdrugmap.data.text_table._PIECE_BYTES", 8 * 42 * 5)

    convert(source, tmp_path / "out.h5ad", quiet=True)

    assert (read_h5ad(tmp_path / "out.h5ad").X != cells.X).nnz == 0


def test_columns_of_numbers_about_cells_are_kept_out_of_the_genes(
    cells: AnnData, tmp_path: Path
) -> None:
    frame = cells.to_df()
    frame.insert(0, "age", range(12))
    frame.insert(0, "nCount_RNA", 5)
    frame.to_csv(tmp_path / "cells.csv")

    made = convert(tmp_path / "cells.csv", tmp_path / "out.h5ad", obs_columns=["age"])
    adata = read_h5ad(tmp_path / "out.h5ad")

    assert made.n_genes == 40
    assert adata.obs["age"].tolist() == list(range(12))
    assert adata.obs["nCount_RNA"].tolist() == [5] * 12


def test_a_table_of_r_without_a_name_above_the_cells_is_understood(tmp_path: Path) -> None:
    (tmp_path / "cells.tsv").write_text("EGFR\tTP53\nc1\t1\t0\nc2\t0\t2\n")

    convert(tmp_path / "cells.tsv", tmp_path / "out.h5ad")
    adata = read_h5ad(tmp_path / "out.h5ad")

    assert list(adata.obs_names) == ["c1", "c2"]
    assert adata.X.toarray().tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell,EGFR,TP53\nc1,1,2\nc2,1,\nc3,1,1\n", "line 3, column TP53: the value is missing"),
        ("cell,EGFR,TP53\nc1,1,2\nc2,1,NA\nc3,1,1\n", "line 3, column TP53: the value is 'NA'"),
        ("cell,EGFR\nc1,1\nc1,2\n", "cell names repeat ('c1', ...)"),
        ("cell,EGFR\n", "no cells below the header"),
        ("EGFR,TP53\n1,2\n", "no column names the cells"),
        ("cell,EGFR\nc1,1\nc2,1,7\n", "Expected 2 fields in line 3, saw 3"),
        ("gene,AAAC-1,AAAG-1\nEGFR,1,0\nTP53,0,1\nKRAS,1,1\n", "the table lies on its side"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "cells.csv").write_text(text)

    with pytest.raises(DataError) as error:
        convert(tmp_path / "cells.csv", tmp_path / "out.h5ad")

    assert message in error.value.message
    assert not (tmp_path / "out.h5ad").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "cells.csv"]


def test_members_of_a_folder_that_do_not_fit_are_refused(cells: AnnData, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", cells, packed=False)
    (folder / "barcodes.tsv").write_text("AAAC-1\n")

    with pytest.raises(DataError, match="there are 1 barcodes, but the matrix has 12"):
        read_10x(folder)


def test_a_matrix_that_declares_more_than_it_can_hold_is_refused(
    cells: AnnData, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "run", cells, packed=False)
    (folder / "matrix.mtx").write_text(
        "%%MatrixMarket matrix coordinate integer general\n40 12 999999999999\n1 1 1\n"
    )

    with pytest.raises(DataError, match="declares 999,999,999,999 entries"):
        read_10x(folder)


def test_a_damaged_10x_file_is_refused_before_its_indices_are_used(
    cells: AnnData, tmp_path: Path
) -> None:
    path = write_h5(tmp_path / "cells.h5", cells)
    with h5py.File(path, "r+") as file:
        file["matrix/indices"][0] = 10**6

    with pytest.raises(DataError, match="index 1,000,000, expected less than 40"):
        read_10x(path)


def test_h5ad_needs_no_conversion(cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")

    with pytest.raises(UsageError, match="which every command reads"):
        convert(tmp_path / "cells.h5ad", tmp_path / "out.h5ad")


def test_the_command_says_what_it_wrote_and_refuses_to_overwrite(
    cli: Callable, cells: AnnData, tmp_path: Path
) -> None:
    source = write_h5(tmp_path / "cells.h5", cells, antibodies=True)
    target = tmp_path / "out.h5ad"

    done, again = cli("convert", source, "-o", target), cli("convert", source, "-o", target)

    assert done.code == 0
    assert done.out == ""
    assert "12 cells x 40 genes" in done.err
    assert "Antibody Capture" in done.err
    assert again.code == 2
    assert "exists" in again.err
    assert cli("convert", source, "-o", target, "--overwrite", "--no-compress").code == 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="NOT RUN: no file that fails")
def test_a_disk_that_fails_is_no_damaged_table() -> None:
    with pytest.raises(ResourceError, match="mem: the disk reported an input/output error"):
        read_layout(Path("/proc/self/mem"))  # its first page can be opened but not read
