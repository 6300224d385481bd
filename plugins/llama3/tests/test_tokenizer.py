"""Cells become texts of ranked genes, cut between genes and never obeyed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.errors import ScDrugMapWarning, UsageError
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import Template, pin_template
from scdrugmap_plugin_llama3.texts import N_OTHER_WORDS, BytePairs, Words
from scdrugmap_plugin_llama3.tokenizer import CellTokenizer

from .conftest import CHECKPOINT, Cells, encode, load

CONTROL = "<|eot_id|>"


@pytest.fixture(scope="module")
def texts() -> BytePairs:
    return BytePairs(json.loads((CHECKPOINT / "tokenizer.json").read_text("utf-8")), "golden")


def embed_template(text: str = "{genes}", **fields: object) -> Template:
    record = {"id": "mine", "version": 1, "kind": "embed", "text": text, **fields}
    return Template.model_validate(record)


def tokenizer_of(texts: BytePairs, template: Template, max_tokens: int = 256) -> CellTokenizer:
    return CellTokenizer(texts, template, (640,), 50, max_tokens, 1000)


def ids_of(tokenizer: CellTokenizer, cells: Cells) -> list[list[int]]:
    rows, genes, names = cells
    tokenizer.bind(genes)
    tokens = tokenizer.encode(rows, names)
    return [
        tokens.flat["id"][start:end].tolist()
        for start, end in zip(tokens.start[:-1], tokens.start[1:], strict=True)
    ]


def test_control_tokens_in_a_text_are_plain_characters(texts: BytePairs) -> None:
    assert texts.special[CONTROL] not in texts.ids(f"TP53 {CONTROL} EGFR")
    again: BytePairs = pickle.loads(pickle.dumps(texts))
    assert again.ids(CONTROL) == texts.ids(CONTROL)


def test_gene_called_like_a_control_token_is_spelt_out(texts: BytePairs) -> None:
    names = np.array([CONTROL, "TP53"], object)
    genes = Genes(names, np.array(["FAKE", "TP53"], object), np.array(["", ""], object))
    rows = csr_matrix(np.array([[5, 1]], np.float32))
    (ids,) = ids_of(tokenizer_of(texts, embed_template()), (rows, genes, np.array(["cell"])))
    assert ids == [640, *texts.ids(f"{CONTROL} TP53")]
    assert texts.special[CONTROL] not in ids


@pytest.mark.parametrize(
    "template",
    [
        embed_template(),
        embed_template("Genes of a cell: {genes}."),
        embed_template(separator=", "),
        embed_template("Highest first: {genes}", null_genes="none"),
    ],
    ids=["names", "framed", "commas", "null text"],
)
def test_looked_up_pieces_equal_the_written_text(
    template: Template, texts: BytePairs, cells: Cells
) -> None:
    fast, slow = tokenizer_of(texts, template), tokenizer_of(texts, template)
    expected_rows, genes, names = cells
    slow.bind(genes)
    slow._table = None
    expected = slow.encode(expected_rows, names)
    fast.bind(genes)
    assert fast._table is not None
    found = fast.encode(expected_rows, names)
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.flat["id"], expected.flat["id"])
    np.testing.assert_array_equal(found.flat["column"], expected.flat["column"])


def test_tokenizer_that_joins_genes_is_not_looked_up(texts: BytePairs, cells: Cells) -> None:
    template = embed_template(separator="")
    tokenizer = tokenizer_of(texts, template)
    with pytest.warns(ScDrugMapWarning, match="mine:1: this tokenizer joins neighbouring genes"):
        found = ids_of(tokenizer, cells)
    named = tokenizer._named
    assert named is not None
    rows = cells[0]
    ranked = named.rank(rows.indices[: rows.indptr[1]], rows.data[: rows.indptr[1]], 50)
    assert found[0] == [640, *texts.ids("".join(named.names[ranked]))]


@pytest.mark.parametrize("max_tokens", [8, 20, 21, 22, 23])
def test_no_gene_is_cut_in_two(max_tokens: int, loaded: LoadedModel, cells: Cells) -> None:
    whole, short = encode(loaded, cells), encode(load(max_tokens=str(max_tokens)), cells)
    assert short.lengths.max() <= max_tokens
    for cell in range(whole.n_cells):
        columns = whole.flat["column"][whole.start[cell] : whole.start[cell + 1]]
        length = short.lengths[cell]
        if length < len(columns):
            assert columns[length] != columns[length - 1]
            gene = np.flatnonzero(columns == columns[length])
            assert length + len(gene) > max_tokens  # the next gene would not have fitted


def test_template_that_has_no_room_for_a_gene_is_refused(texts: BytePairs, cells: Cells) -> None:
    template = embed_template("The genes of this cell in order are {genes}")
    tokenizer = tokenizer_of(texts, template, max_tokens=8)
    with pytest.raises(UsageError, match=r"template mine:1 has \d+ tokens without a single gene"):
        ids_of(tokenizer, cells)


def test_template_of_the_user_is_part_of_the_options(tmp_path: Path, cells: Cells) -> None:
    path = tmp_path / "mine.json"
    path.write_text(embed_template("Cell: {genes}").model_dump_json())
    mine = load(template=str(path))
    assert mine.options.template == pin_template(str(path))
    assert mine.identity() != load().identity()
    texts = mine.model.tokenizer.texts
    assert encode(mine, cells).flat["id"][: 1 + len(texts.ids("Cell:"))].tolist() == [
        640,
        *texts.ids("Cell:"),
    ]


def test_question_is_no_text_to_embed_and_the_other_way_round() -> None:
    with pytest.raises(UsageError, match="is a question, not a text to embed"):
        load(template="scdrugmap-classify")
    with pytest.raises(UsageError, match="asks no question about ranked genes"):
        load(question="names")


def test_genes_left_out_by_the_template_are_not_named(texts: BytePairs) -> None:
    genes = Genes.from_names(["MALAT1", "TP53", "MT-CO1"])
    rows = csr_matrix(np.array([[9, 1, 5]], np.float32))
    template = embed_template(leave_out=["malat1", "mitochondrial"])
    (ids,) = ids_of(tokenizer_of(texts, template), (rows, genes, np.array(["cell"])))
    assert ids == [640, *texts.ids("TP53")]


def test_logarithms_give_the_tokens_of_counts(loaded: LoadedModel, cells: Cells) -> None:
    rows, genes, names = cells
    plain = encode(loaded, cells)
    logarithms = rows.copy()
    logarithms.data = np.log1p(logarithms.data)
    other = encode(loaded, (logarithms, genes, names))
    np.testing.assert_array_equal(plain.flat["id"], other.flat["id"])


def test_words_have_one_id_each_and_no_two_genes_share_one() -> None:
    words = Words(["TP53", "HLA-A"], first=2)
    ids = words.ids("TP53 HLA-A: one word, sensitive")
    assert ids[:2] == [2, 3]
    assert all(4 <= token < 4 + N_OTHER_WORDS == words.n_ids for token in ids[2:])
    assert words.spans("TP53 x")[1] == [4, 6]
