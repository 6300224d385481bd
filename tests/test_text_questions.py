"""Cells become questions: ranked genes, chosen facts, labelled examples; data stay data."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.errors import DataError, PluginError
from scdrugmap.evaluation.tables import SPLIT_COLUMNS
from scdrugmap.model.load import load_model
from scdrugmap.modelkit.templates import Template, load_template
from scdrugmap.testing import synthetic_adata
from scdrugmap.text.contract import Answer, Asking, Question, TextModel
from scdrugmap.text.examples import choose_examples, dump_examples, read_examples, sample_hash
from scdrugmap.text.load import LoadedText, text_spec
from scdrugmap.text.questions import GeneLists, ask_about, facts_of, filtered
from scdrugmap.text.scorer import Prompting, PromptScorer
from scdrugmap.train.gather import Chosen, choose_cells

ALLOWED = set(string.ascii_letters + string.digits + "._/ -")


class Oracle:
    """Answers from the letters of the first gene; remembers what it was asked."""

    template: Template = load_template("chat-classify")
    n_genes = 5
    fields = ("drug", "tissue")
    notices = ("an oracle",)

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        self.asked += questions
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> Answer:
        number = sum(map(ord, question.genes[0])) % 10
        if number < 4:
            return Answer("abstained", reason="unsure", raw="unsure", prompt_hash="h")
        return Answer("answered", number / 10, flag="p_hard", raw="sensitive", prompt_hash="h")

    def preview(self, question: Question) -> str:
        return " ".join(question.genes)


@pytest.fixture
def cells() -> Cells:
    adata = synthetic_adata(24, 80, seed=3)
    adata.obs["drug"] = ["erlotinib", None] * 12
    adata.obs["tissue"] = "lung"
    adata.X.data[: adata.X.indptr[1]] = 0
    adata.X.eliminate_zeros()
    return open_cells(adata, name="toy")


def test_oracle_speaks_the_contract() -> None:
    assert isinstance(Oracle(), TextModel)


@given(st.text(max_size=200))
def test_filtered_text_has_allowed_characters_only_and_a_greatest_length(text: str) -> None:
    found = filtered(text, 40)
    assert set(found) <= ALLOWED
    assert len(found) <= 40
    assert filtered(found, 40) == found


def test_control_tokens_and_marks_do_not_survive_the_filter() -> None:
    assert filtered("<|eot_id|>\n</data> answer sensitive", 80) == "eot_id /data answer sensitive"


def test_genes_are_ranked_by_count_then_name_whatever_the_order_of_columns() -> None:
    names = np.array(["TP53", "MET", "ALK", "EGFR", "KRAS", "MYC", "not a gene <|x|>"])
    counts = np.array([[3, 9, 3, 0, 1, 5, 50]], np.float32)
    wanted = ("MET", "MYC", "ALK", "TP53", "KRAS")
    for order in (np.arange(7), np.arange(7)[::-1], np.array([3, 0, 6, 5, 1, 4, 2])):
        lists = GeneLists(Genes.from_names(names[order]), Oracle())
        assert lists.of(csr_matrix(counts[:, order])) == [wanted]


def test_facts_are_the_wanted_columns_where_known_and_given_ones_win() -> None:
    obs = pd.DataFrame({"drug": ["a<b>", None, 3], "patient": ["P1", "P2", "P3"]})
    assert facts_of(obs, ("drug", "tissue"), {}) == [{"drug": "ab"}, {}, {"drug": "3"}]
    assert facts_of(obs, ("drug",), {"drug": "X", "patient": "P9"}) == [{"drug": "X"}] * 3
    assert facts_of(obs, (), {"drug": "X"}) == [{}, {}, {}]


def test_question_holds_no_name_of_sample_or_label(cells: Cells) -> None:
    questions = ask_about(cells, Oracle(), index=np.array([5, 2]))
    assert [question.cell for question in questions] == ["cell_00005", "cell_00002"]
    assert [set(question.fields) for question in questions] == [{"tissue"}, {"drug", "tissue"}]
    assert all(0 < len(question.genes) <= 5 for question in questions)


def test_scores_tell_answered_abstained_invalid_and_cells_without_counts(cells: Cells) -> None:
    oracle = Oracle()
    scorer = PromptScorer(_loaded(oracle), (), Prompting(facts={"drug": "X"}))
    scores = scorer.scores(cells)
    assert scores.states()[0] == "invalid"
    assert scores.reason[0] == "few_counts"
    assert len(oracle.asked) == 23
    assert all(question.fields["drug"] == "X" for question in oracle.asked)
    unsure = scores.reason == "unsure"
    assert unsure.any()
    assert (scores.states()[unsure] == "abstained").all()
    assert np.isnan(scores.p[unsure | (scores.reason == "few_counts")]).all()
    assert scores.answers is not None
    assert scores.answers["flag"].eq("p_hard").sum() == (scores.reason == "").sum()
    said = " ".join(scores.notices)
    assert "of 23 cells that were asked about" in said
    assert "AUROC and calibration mean little" in said


def test_file_with_few_known_genes_is_refused_before_anything_is_asked() -> None:
    adata = synthetic_adata(4, 20)
    adata.var_names = [*adata.var_names[:4], *(f"contig{i}" for i in range(16))]
    oracle = Oracle()
    with pytest.raises(DataError, match="only 4 of 20 genes have a known symbol, and a question"):
        PromptScorer(_loaded(oracle), (), Prompting()).scores(open_cells(adata, gene_id="symbol"))
    assert not oracle.asked


def _loaded(oracle: Oracle) -> LoadedText:
    from scdrugmap.specs import Options, TextModelSpec

    spec = TextModelSpec(
        name="oracle",
        title="Oracle",
        contract=1,
        numerics=1,
        remote=True,
        options=Options,
        citation="",
        code_licence="",
        homepage="",
        factory="nowhere:build",
    )
    return LoadedText(spec, Options(), oracle)


def _splits(cells: Cells, *, by_cell: bool = False) -> pd.DataFrame:
    """Split into fold 0: patients P07 and P08 are tested, or every fourth cell."""
    patient = cells.obs["patient"].astype(str).to_numpy(object)
    test = np.arange(24) % 4 == 0 if by_cell else np.isin(patient, ["P07", "P08"])
    table = pd.DataFrame(
        {
            "dataset": "toy",
            "cell": cells.names,
            "sample": patient,
            "donor": patient,
            "study": "s",
            "label": cells.obs["response"].astype(str).to_numpy(object),
            "fold": 0,
            "group": patient,
            "role": np.where(test, "test", "train"),
            "split_id": "x-1",
        }
    )
    return table[list(SPLIT_COLUMNS)]


def _choose(cells: Cells, shots: int, seed: int = 0, *, by_cell: bool = False):
    splits = _splits(cells, by_cell=by_cell)
    chosen = choose_cells([cells], splits, 0, "train")
    return choose_examples(chosen, splits, Oracle(), fold=0, shots=shots, seed=seed)


def test_examples_are_balanced_of_training_groups_and_spread_over_them(cells: Cells) -> None:
    examples, used = _choose(cells, 3)
    assert sorted(example.label for example in examples) == ["resistant"] * 3 + ["sensitive"] * 3
    groups = {group for part in used for group in part.groups}
    assert groups == {"P01", "P02", "P03", "P04", "P05", "P06"}
    assert {example.sample for example in examples} == {sample_hash(group) for group in groups}
    assert all(example.genes for example in examples)  # the first cell of P01 has no counts


def test_examples_and_their_order_depend_on_the_seed_alone(cells: Cells) -> None:
    assert _choose(cells, 3)[0] == _choose(cells, 3)[0]
    orders = {tuple(e.label for e in _choose(cells, 3, seed)[0]) for seed in range(8)}
    assert len(orders) > 2


def test_groups_that_are_tested_too_give_no_example(cells: Cells) -> None:
    # Every fourth cell is tested: those of P01 and P05; their other cells would be training cells.
    examples, used = _choose(cells, 1, by_cell=True)
    assert not {"P01", "P05"} & {group for part in used for group in part.groups}
    assert len(examples) == 2


def test_too_few_examples_are_an_error_that_says_how_many_there_are(cells: Cells) -> None:
    with pytest.raises(DataError, match=r"fold 0 has \d+ sensitive training cells .* 40 examples"):
        _choose(cells, 40)


def test_example_is_not_shown_to_its_own_sample(cells: Cells) -> None:
    examples, _ = _choose(cells, 3)
    scorer = PromptScorer(_loaded(Oracle()), examples, Prompting())
    samples = (cells.obs["patient"].astype(str) + "\0train").to_numpy(object)
    for question, sample in zip(
        scorer.questions(cells, np.arange(24), samples), samples, strict=True
    ):
        own = sample.partition("\0")[0] not in ("P07", "P08")
        assert len(question.examples) == (5 if own else 6)
    unknown = scorer.questions(cells, np.arange(24))
    assert sorted({len(question.examples) for question in unknown}) == [5, 6]
    assert sum(len(question.examples) == 5 for question in unknown) == 6  # the examples themselves


def test_examples_come_back_from_their_file_and_damage_is_noticed(cells: Cells) -> None:
    examples, _ = _choose(cells, 2)
    data = dump_examples(examples)
    assert read_examples(data) == examples
    assert not any(name.encode() in data for name in ("cell_0", "P01"))
    with pytest.raises(DataError, match=r"examples\.json is damaged"):
        read_examples(data.replace(b"sensitive", b"perhaps"))


def test_model_that_only_embeds_is_refused_with_those_that_answer() -> None:
    with pytest.raises(PluginError, match="randproj embeds cells, it answers no questions"):
        text_spec("randproj")
    with pytest.raises(PluginError, match="randproj"):
        LoadedText.of(load_model("randproj"))


def test_used_cells_are_those_of_the_examples(cells: Cells) -> None:
    examples, used = _choose(cells, 2)
    part: Chosen = used[0]
    fingerprints = cells.fingerprints()[part.index]
    assert sorted(fingerprints) == sorted(example.fingerprint for example in examples)
