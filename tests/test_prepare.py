"""Files in the format that GEO has them become one h5ad file with labels."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.gene_rows import read_gene_rows
from scdrugmap.data.genes import gene_table
from scdrugmap.data.prepare import prepare_series
from scdrugmap.data.recipe import read_recipe, recipe_names
from scdrugmap.errors import DataError, ResourceError, UsageError

GENES = list(gene_table().names("symbol")[:40])


def counts(n_cells: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (len(GENES), n_cells))


def gene_rows(values: np.ndarray, cells: list[str], genes: list[str] = GENES) -> bytes:
    lines = ["GENE\t" + "\t".join(cells)]
    lines += [f"{g}\t" + "\t".join(map(str, row)) for g, row in zip(genes, values, strict=True)]
    return gzip.compress(("\n".join(lines) + "\n").encode())


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


SAMPLES = ("GSM4494347_D0", "GSM4494348_D11b", "GSM4494349_D11c")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A small GSE149214: three samples of Drop-seq tables in one archive."""
    folder = tmp_path / "raw"
    folder.mkdir()
    members = {
        f"{name}.dge.txt.gz": gene_rows(counts(4, seed), ["AC", "AG", "AT", "CG"])
        for seed, name in enumerate(SAMPLES)
    }
    write_tar(folder / "GSE149214_RAW.tar", members)
    return folder


def test_a_verified_recipe_labels_the_cells_of_each_sample(series: Path, tmp_path: Path) -> None:
    done = prepare_series("GSE149214", series, tmp_path / "pc9.h5ad", quiet=True)
    adata = anndata.read_h5ad(tmp_path / "pc9.h5ad")
    assert done.labels == {"resistant": 8, "sensitive": 4}
    assert adata.obs_names[0] == "GSM4494347:AC"
    np.testing.assert_array_equal(adata.X.toarray()[:4], counts(4, 0).T)
    np.testing.assert_array_equal(adata.X.toarray()[8:], counts(4, 2).T)
    assert adata.obs["response"].tolist() == ["sensitive"] * 4 + ["resistant"] * 8
    assert adata.obs["response_published"].iloc[-1] == "after erlotinib"
    assert set(adata.obs["donor"]) == {"PC9"}
    record = json.loads(adata.uns["scdrugmap"]["prepare"])
    assert record["recipe"]["accession"] == "GSE149214"
    assert list(record["files"]) == ["GSE149214_RAW.tar"]


def test_what_is_prepared_goes_through_check_and_split(
    series: Path, tmp_path: Path, cli: Callable
) -> None:
    target = tmp_path / "pc9.h5ad"
    assert cli("datasets", "prepare", "GSE149214", "--from", series, "-o", target).code == 0
    assert cli("check", target).code == 0
    split = ("split", target, "--label", "response", "--group", "donor", "--sample", "sample")
    done = cli(*split, "--protocol", "paper-pooled", "--folds", 2, "-o", tmp_path / "splits.tsv")
    assert done.code == 0, done.err


def test_every_recipe_that_is_not_a_draft_quotes_a_text_with_its_samples() -> None:
    recipes = [read_recipe(name) for name in recipe_names()]
    verified = [recipe for recipe in recipes if not recipe.draft]
    assert [recipe.accession for recipe in verified] == ["GSE149214"]
    for recipe in verified:
        quoted = " ".join(evidence.quote for evidence in recipe.evidence)
        assert all(source.obs["sample"] in quoted for source in recipe.sources)


def annotations(rows: list[tuple[str, str, str, str]]) -> bytes:
    """The template that GSE120575 has its cells in: lines of advice, cells, more template."""
    header = (
        "Sample name\ttitle\tcharacteristics: patinet ID (Pre=baseline; Post= on treatment)"
        "\tcharacteristics: response\tcharacteristics: therapy"
    )
    lines = ["# advice"] * 19 + [header]
    lines += [f"Sample {i}\t{a}\t{b}\t{c}\t{d}" for i, (a, b, c, d) in enumerate(rows, 1)]
    return gzip.compress(("\n".join([*lines, "PROTOCOLS\t\t\t\t"]) + "\n").encode("latin1"))


def test_a_table_of_annotations_gives_each_cell_its_patient_and_response(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    cells = ["A1", "A2", "A3"]
    table = "\n".join(
        ["\t" + "\t".join(cells) + "\t", "\tPre_P1\tPre_P1\tPost_P2\t"]
        + [f"{g}\t0\t1.5\t{0.25 * i}\t" for i, g in enumerate(GENES)]
    )
    (folder / "GSE120575_Sade_Feldman_melanoma_single_cells_TPM_GEO.txt.gz").write_bytes(
        gzip.compress(table.encode())
    )
    rows = [
        ("A3", "Post_P2_2", "Responder", "anti-PD1"),
        ("A1", "Pre_P1", "Non-responder", "anti-CTLA4"),
        ("A2", "Pre_P1", "Non-responder", "anti-CTLA4"),
    ]
    (folder / "GSE120575_patient_ID_single_cells.txt.gz").write_bytes(annotations(rows))
    prepare_series("GSE120575", folder, tmp_path / "o.h5ad", accept_draft=True, quiet=True)
    adata = anndata.read_h5ad(tmp_path / "o.h5ad")
    assert adata.obs["response"].tolist() == ["resistant", "resistant", "sensitive"]
    assert adata.obs["donor"].tolist() == ["P1", "P1", "P2"]
    assert adata.obs["timepoint"].tolist() == ["Pre", "Pre", "Post"]
    np.testing.assert_allclose(adata.X.toarray()[2], 0.25 * np.arange(len(GENES)))


def test_a_draft_is_refused_unless_it_is_accepted(series: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a draft") as error:
        prepare_series("GSE120575", series, tmp_path / "o.h5ad")
    assert "--accept-draft" in str(error.value.hint)


RECIPE = """
accession: GSE1
title: a series of mine
sources:
  - {file: "S1_*", layout: 10x_folder, obs: {sample: S1, response: good}}
  - {file: "S2_*", layout: 10x_folder, obs: {sample: S2, response: bad}}
sensitive: [Good]
resistant: [Bad]
"""


def write_10x(folder: Path, prefix: str, genes: list[str], seed: int) -> None:
    values = csr_matrix(np.random.default_rng(seed).poisson(1.0, (len(genes), 3)))
    coo = values.tocoo()
    lines = ["%%MatrixMarket matrix coordinate integer general", f"{len(genes)} 3 {coo.nnz}"]
    lines += [f"{i + 1} {j + 1} {v}" for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)]
    features = [f"ENSG{i:011}\t{gene}\tGene Expression" for i, gene in enumerate(genes)]
    for name, text in {
        "matrix.mtx": lines,
        "features.tsv": features,
        "barcodes.tsv": ["AC-1", "AG-1", "AT-1"],
    }.items():
        data = gzip.compress(("\n".join(text) + "\n").encode())
        (folder / f"{prefix}_{name}.gz").write_bytes(data)


def test_a_recipe_of_ones_own_reads_10x_files_with_a_prefix(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    write_10x(folder, "S1", GENES, 1)
    write_10x(folder, "S2", GENES[5:], 2)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    prepare_series(tmp_path / "mine.yaml", folder, tmp_path / "o.h5ad", accept_draft=True)
    adata = anndata.read_h5ad(tmp_path / "o.h5ad")
    assert adata.shape == (6, len(GENES) - 5)
    assert adata.obs["response"].tolist() == ["sensitive"] * 3 + ["resistant"] * 3


def test_files_without_a_gene_in_common_are_not_joined(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    write_10x(folder, "S1", GENES[:20], 1)
    write_10x(folder, "S2", GENES[20:], 2)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    with pytest.raises(DataError, match="0 genes are in all of its 2 files"):
        prepare_series(tmp_path / "mine.yaml", folder, tmp_path / "o.h5ad", accept_draft=True)
    assert not (tmp_path / "o.h5ad").exists()


def test_absent_renamed_and_truncated_files_are_named(series: Path, tmp_path: Path) -> None:
    archive = series / "GSE149214_RAW.tar"
    data = archive.read_bytes()
    archive.write_bytes(data[:700])
    with pytest.raises(DataError, match=r"GSE149214_RAW\.tar is damaged or truncated"):
        prepare_series("GSE149214", series, tmp_path / "o.h5ad", quiet=True)
    members = {f"{name}.dge.txt.gz": gene_rows(counts(2, 0), ["A", "B"]) for name in SAMPLES[:2]}
    write_tar(archive, members)
    with pytest.raises(DataError, match=r"has no file GSM4494349\*\.dge\.txt\.gz") as error:
        prepare_series("GSE149214", series, tmp_path / "o.h5ad", quiet=True)
    assert "GSE149214_RAW.tar" in error.value.message
    archive.rename(series / "other.tar")
    with pytest.raises(DataError, match=r"has no file GSE149214_RAW\.tar") as error:
        prepare_series("GSE149214", series, tmp_path / "o.h5ad", quiet=True)
    assert error.value.hint == "it has: other.tar"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    assert [path.name for path in series.iterdir()] == ["other.tar"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"GENE\tA\tB\nTP53\t1\tx\n", "gene TP53, cell B is 'x', not a number"),
        (b"GENE\tA\tB\nTP53\t1\t\n", "gene TP53, cell B is '', not a number"),
        (b"GENE\tA\tA\nTP53\t1\t2\n", "the cell 'A' is there twice"),
        (b"GENE\tA\tB\nTP53\t1\n", "Usecols|columns|fields|x"),
        (b"", "does not begin with names of cells"),
        (b"\xff\xfe\t\x00\n", "codec can't decode"),
    ],
)
def test_a_damaged_table_says_where(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_gene_rows(tmp_path / "t.txt")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="NOT RUN: no file that fails")
def test_a_disk_that_fails_while_a_table_is_read_is_no_damaged_table() -> None:
    with pytest.raises(ResourceError, match="mem: the disk reported an input/output error"):
        read_gene_rows(Path("/proc/self/mem"))  # its first page can be opened but not read


def test_a_table_as_r_writes_it_has_no_name_over_the_genes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"A","B"\n"TP53",1,2\n"EGFR",0,3\n')
    table = read_gene_rows(tmp_path / "t.csv")
    assert table.cells.tolist() == ["A", "B"]
    assert table.genes.tolist() == ["TP53", "EGFR"]
    np.testing.assert_array_equal(table.values.toarray(), [[1, 0], [2, 3]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("draft: false\n", "without a quoted text"),
        ("colour: red\n", "colour"),
        ("derived: {donor: {column: sample, pattern: 'x'}}\n", "has 0 groups, expected 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_explained(change: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE + change)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "mine.yaml")


def test_a_response_that_the_recipe_does_not_know_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    write_10x(folder, "S1", GENES, 1)
    write_10x(folder, "S2", GENES, 2)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("response: bad", "response: stable"))
    with pytest.raises(DataError, match="the response 'stable' is not in the recipe"):
        prepare_series(tmp_path / "mine.yaml", folder, tmp_path / "o.h5ad", accept_draft=True)


def test_recipes_are_listed_with_their_state(cli: Callable) -> None:
    listed = cli("datasets", "recipe").out
    assert "GSE149214  verified" in listed
    assert "GSE120575  draft" in listed
    shown = json.loads(cli("datasets", "recipe", "GSE149214").out)
    assert shown["evidence"][0]["url"].startswith("https://")
    assert cli("datasets", "recipe", "GSE7").code == 2
