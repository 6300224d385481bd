"""Splits test every cell once, keep groups whole, and depend on nothing but the cells."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import SLOW, cell_names, orders, seeds

from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.evaluate import evaluate
from scdrugmap.evaluation.groups import connect_cells
from scdrugmap.evaluation.splits import make_split, permute_labels
from scdrugmap.evaluation.tables import check_splits, read_splits, split_id, write_splits

N_DONORS, N_CELLS = 8, 4
DIVIDING = ["pooled-group", "within", "paper-pooled"]
protocols = st.sampled_from(DIVIDING)
folds = st.integers(2, 5)


def design(names: list[str] | None = None, donors: list[str] | None = None) -> Design:
    """Make eight donors of four cells each, every other one sensitive."""
    donors = donors or [f"p{number}" for number in range(N_DONORS)]
    donor = np.repeat(np.array(donors, object), N_CELLS)
    n = len(donor)
    label = np.where(np.arange(n) // N_CELLS % 2, "sensitive", "resistant").astype(object)
    return Design(
        pd.DataFrame(
            {
                "dataset": "d",
                "cell": names or [f"c{number}" for number in range(n)],
                "sample": donor,
                "donor": donor,
                "study": "d",
                "label": label,
                "fingerprint": [f"{number:032x}" for number in range(n)],
            },
            dtype=object,
        )
    )


N = N_DONORS * N_CELLS


@SLOW
@given(protocols, folds, seeds, st.booleans())
def test_every_cell_is_tested_exactly_once(
    protocol: str, n_folds: int, seed: int, validation: bool
) -> None:
    try:
        table = make_split(
            design(), protocol, folds=n_folds, seed=seed, validation=validation
        ).table
    except DataError:
        return  # too few groups for a validation part
    tested = table[table["role"] == "test"]
    assert sorted(tested["cell"]) == sorted(design().frame["cell"])
    assert (table.groupby(["fold", "cell"]).size() == 1).all()


@SLOW
@given(protocols, folds, seeds, orders(N))
def test_a_split_and_its_hash_do_not_depend_on_the_order_of_cells(
    protocol: str, n_folds: int, seed: int, order: np.ndarray
) -> None:
    first = make_split(design(), protocol, folds=n_folds, seed=seed)
    mixed = Design(design().frame.iloc[order])
    second = make_split(mixed, protocol, folds=n_folds, seed=seed)
    pd.testing.assert_frame_equal(first.table, second.table)
    rows = first.table.sample(frac=1, random_state=seed % 2**31)
    assert split_id(rows, protocol) == first.split_id


@SLOW
@given(st.integers(0, N - 1), st.sampled_from(["cell", "donor", "label", "role", "study"]), seeds)
def test_a_split_in_which_one_field_was_edited_is_refused(row: int, column: str, seed: int) -> None:
    table = make_split(design(), seed=seed).table.copy()
    other = {
        "label": {"sensitive": "resistant", "resistant": "sensitive"},
        "role": {"train": "test", "test": "train"},
    }
    before = table[column].iloc[row]
    table.loc[table.index[row], column] = other.get(column, {}).get(before, f"{before}x")
    with pytest.raises(DataError):
        check_splits(table)


@SLOW
@given(st.lists(cell_names, min_size=N, max_size=N, unique=True), seeds, st.booleans())
def test_splits_come_back_from_their_file_whatever_the_cells_are_called(
    names: list[str], seed: int, packed: bool
) -> None:
    table = make_split(design(names), seed=seed).table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("splits.tsv.gz" if packed else "splits.tsv")
        write_splits(table, path)
        pd.testing.assert_frame_equal(read_splits(path), table)


@SLOW
@given(st.lists(cell_names, min_size=N_DONORS, max_size=N_DONORS), seeds)
def test_cells_of_one_donor_stay_together_whatever_donors_are_called(
    donors: list[str], seed: int
) -> None:
    try:
        table = make_split(design(donors=donors), seed=seed).table
    except DataError:
        assert len(set(donors)) < N_DONORS  # donors of one name are one donor: too few are left
        return
    assert (table.groupby(["fold", "donor"])["role"].nunique() == 1).all()


@SLOW
@given(seeds, orders(N))
def test_permuted_labels_are_those_of_the_groups_dealt_out_anew(
    seed: int, order: np.ndarray
) -> None:
    cohort = design()
    dealt = permute_labels(cohort, seed).frame
    group = connect_cells(cohort.frame)
    before, after = (
        frame.groupby(group)["label"].agg(["first", "nunique"]) for frame in (cohort.frame, dealt)
    )
    assert (after["nunique"] == 1).all()
    assert sorted(after["first"]) == sorted(before["first"])
    mixed = permute_labels(Design(cohort.frame.iloc[order]), seed).frame
    assert mixed.sort_index()["label"].tolist() == dealt["label"].tolist()


@SLOW
@given(seeds, orders(N), st.integers(0, 40))
def test_the_order_of_rows_changes_no_figure(seed: int, order: np.ndarray, draws: int) -> None:
    splits = make_split(design(), folds=2, seed=seed).table
    tested = splits[splits["role"] == "test"].reset_index(drop=True)
    predictions = tested[["dataset", "cell", "sample", "fold", "role"]].assign(
        model="m",
        strategy="estimator",
        seed=0,
        p_sensitive=np.random.default_rng(seed).random(len(tested)).round(2),
        threshold=0.5,
        state="answered",
        reason="",
    )
    first = evaluate(predictions, splits, draws=draws)
    mixed = splits.sample(frac=1, random_state=seed % 2**31)
    second = evaluate(predictions.iloc[order], mixed, draws=draws)
    pd.testing.assert_frame_equal(first, second)


words = st.sampled_from(["R", "NR", "PD", "CR", "n/a", "1", "0", "yes", "ä"])


@SLOW
@given(
    st.lists(words, min_size=3, max_size=6, unique=True),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.integers(0, 2),
    st.sampled_from([str, str.lower, str.upper, lambda word: f"  {word} "]),
)
def test_labels_mean_the_same_in_any_case_and_with_blanks(
    chosen: list[str], cells: list[int], n_dropped: int, spell: object
) -> None:
    sensitive, resistant, drop = chosen[:1], chosen[1:2], chosen[2 : 2 + n_dropped]
    known = [*sensitive, *resistant, *drop]
    column = pd.Series([known[place % len(known)] for place in cells], name="response")
    spelt = column.map(spell)  # type: ignore[arg-type]
    labels = LabelMap.parse(sensitive, resistant, drop)
    if not set(column) & {*sensitive, *resistant}:
        with pytest.raises(DataError, match="no cell has a label"):
            labels.apply(spelt, where="file")
        return
    found = labels.apply(spelt, where="file")
    meaning = {sensitive[0]: "sensitive", resistant[0]: "resistant"}
    assert found.values.tolist() == [meaning.get(word, "") for word in column]
    assert found.n_dropped == int((found.values == "").sum())
    again = LabelMap.parse(labels.sensitive, labels.resistant, labels.drop)
    assert again == labels
