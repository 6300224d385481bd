"""Choosing and ordering the genes of a cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import Tokens
from scdrugmap_plugin_tgpt import Options
from scdrugmap_plugin_tgpt.tokenizer import SPECIALS, Tokenizer

WORDS = (*SPECIALS, "HLA_A", "RPL3", "SEPT7", "CD3E", ":", "predict", "GTEx", "C1orf43", "NKX2_1")
VOCABULARY = {name: token for token, name in enumerate((*WORDS, "AC119396_1", "extra_id_0"))}
NAMES = {token: name for name, token in VOCABULARY.items()}


def tokenise(
    genes: Sequence[str], counts: Sequence[Sequence[float]], **options: object
) -> list[str]:
    """Return the tokens of each cell as one text."""
    tokens = encode(genes, counts, **options)
    bounds = zip(tokens.start[:-1], tokens.start[1:], strict=True)
    ids = tokens.flat["id"].tolist()
    return [" ".join(NAMES[token] for token in ids[a:b]) for a, b in bounds]


def encode(genes: Sequence[str], counts: Sequence[Sequence[float]], **options: object) -> Tokens:
    tokenizer = Tokenizer(VOCABULARY, Options.model_validate(options))
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    rows = csr_matrix(np.array(counts, np.float32).reshape(-1, len(genes)))
    return tokenizer.encode(rows, np.array([f"cell {n}" for n in range(rows.shape[0])], object))


def test_genes_stand_in_descending_order_of_expression_after_the_begin() -> None:
    assert tokenise(["CD3E", "RPL3", "HLA-A"], [[2, 0, 9], [1, 3, 2]]) == [
        "</b> HLA_A CD3E",
        "</b> RPL3 HLA_A CD3E",
    ]


def test_equal_genes_stand_in_the_order_of_the_vocabulary_or_of_the_file() -> None:
    genes, counts = ["CD3E", "RPL3", "HLA-A"], [[4, 4, 4]]
    assert tokenise(genes, counts) == ["</b> HLA_A RPL3 CD3E"]
    assert tokenise(genes, counts, ties="column") == ["</b> CD3E RPL3 HLA_A"]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("HLA-A", "HLA_A"),
        ("HLA_A", "HLA_A"),
        ("HLA.A", "HLA_A"),
        ("NKX2-1", "NKX2_1"),
        ("AC119396.1", "AC119396_1"),
        ("C1orf43", "C1orf43"),
    ],
)
def test_all_spellings_of_a_gene_are_found(name: str, token: str) -> None:
    assert tokenise([name], [[1]]) == [f"</b> {token}"]


@pytest.mark.parametrize("name", ["SEPT7", "SEPTIN7"])
def test_old_and_current_symbols_of_a_gene_are_found(name: str) -> None:
    assert tokenise([name, "CD3E"], [[5, 1]]) == ["</b> SEPT7 CD3E"]


@pytest.mark.parametrize("name", ["predict", "GTEx", ":", "extra_id_0", "<unk>", "</b>"])
def test_words_of_prompts_and_special_tokens_are_no_genes(name: str) -> None:
    tokenizer = Tokenizer(VOCABULARY, Options())
    assert len(tokenizer.genes) == 7
    genes = Genes.from_names([name, "CD3E"], kind="symbol")
    assert tokenizer.bind(genes).matched.tolist() == [False, True]


def test_unknown_genes_take_no_places_unless_asked_to() -> None:
    genes, counts = ["NOGENE1", "NOGENE2", "CD3E", "HLA-A"], [[9, 8, 7, 6]]
    assert tokenise(genes, counts, max_length=4) == ["</b> CD3E HLA_A"]
    assert tokenise(genes, counts, max_length=5, unknown="token") == ["</b> <unk> <unk> CD3E"]


def test_the_end_is_there_where_the_mean_includes_it_and_keeps_its_place_in_a_cut_cell() -> None:
    genes, counts = ["CD3E", "HLA-A", "RPL3"], [[3, 2, 1]]
    assert tokenise(genes, counts, max_length=4, pool="all") == ["</b> CD3E HLA_A </s>"]
    assert tokenise(genes, counts, max_length=4) == ["</b> CD3E HLA_A"]


@pytest.mark.parametrize("unknown", ["drop", "token"])
def test_ribosomal_genes_are_left_out_when_asked(unknown: str) -> None:
    # RPL4 is not in this vocabulary: it must not come back as <unk>.
    genes, counts = ["RPL3", "RPL4", "CD3E"], [[9, 8, 1]]
    assert tokenise(genes, counts, exclude_ribosomal=True, unknown=unknown) == ["</b> CD3E"]
    assert tokenise(genes, counts) == ["</b> RPL3 CD3E"]


def test_excluded_genes_are_not_counted_as_known() -> None:
    genes = Genes.from_names(["RPL3", "CD3E"], kind="symbol")
    coverage = Tokenizer(VOCABULARY, Options(exclude_ribosomal=True)).bind(genes)
    assert (coverage.n_matched, coverage.n_vocabulary) == (1, 6)


def test_counts_and_their_logarithms_give_the_same_tokens() -> None:
    random = np.random.default_rng(0)
    genes = ["HLA-A", "RPL3", "SEPT7", "CD3E", "C1orf43", "NKX2-1"]
    counts = random.poisson(2, (20, 6)).astype(np.float32)
    assert tokenise(genes, counts.tolist()) == tokenise(genes, np.log1p(counts).tolist())


def test_columns_name_the_genes_of_the_tokens() -> None:
    tokens = encode(["NOGENE", "CD3E", "HLA-A"], [[5, 1, 2]], unknown="token", pool="all")
    assert tokens.flat["column"].tolist() == [-1, 0, 2, 1, -1]


@pytest.mark.parametrize("unknown", ["drop", "token"])
def test_cell_without_known_genes_is_marked_unusable(unknown: str) -> None:
    tokens = encode(["NOGENE", "CD3E"], [[1, 1], [0, 0], [3, 0]], unknown=unknown)
    assert tokens.usable.tolist() == [True, False, False]


def test_no_cells_give_no_tokens() -> None:
    tokens = encode(["CD3E"], [])
    assert tokens.n_cells == 0
    assert tokens.flat["id"].dtype == np.int32


def test_a_file_of_ensembl_ids_is_read() -> None:
    tokenizer = Tokenizer(VOCABULARY, Options())
    genes = Genes.from_names(["ENSG00000198851", "ENSG00000206503"], kind="ensembl")
    assert tokenizer.bind(genes).matched.tolist() == [True, True]


def test_a_length_without_room_for_a_gene_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 3"):
        Options(max_length=2)
