"""Folds that do not leak."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.splits import PROTOCOLS, Split, make_split, permute_labels
from scdrugmap.evaluation.tables import SPLIT_COLUMNS, check_splits

DIVIDING = ["pooled-group", "within", "paper-pooled"]
"""Protocols that test every cell once; those that hold something out have tests of their own."""
SOUND = [name for name in DIVIDING if PROTOCOLS[name].family == "sound"]


def design(
    n_donors: int = 8, n_cells: int = 5, *, datasets: int = 1, resistant: int | None = None
) -> Design:
    """Make donors of which every other one (or the first `resistant`) is resistant."""
    rows = []
    for d in range(datasets):
        for donor in range(n_donors):
            hard = donor % 2 == 0 if resistant is None else donor < resistant
            rows += [
                {
                    "dataset": f"d{d}",
                    "cell": f"c{donor}_{i}",
                    "sample": f"s{donor}",
                    "donor": f"p{donor}",
                    "study": f"d{d}",
                    "label": "resistant" if hard else "sensitive",
                    "fingerprint": f"{d}_{donor}_{i}",
                }
                for i in range(n_cells)
            ]
    return Design(pd.DataFrame(rows, dtype=object))


def change(of: Design, rows: slice | list[int], **values: str) -> Design:
    frame = of.frame.copy()
    for column, value in values.items():
        frame.loc[frame.index[rows], column] = value
    return Design(frame, of.notices)


def notices(split: Split) -> str:
    return "\n".join(split.notices)


@pytest.mark.parametrize("protocol", DIVIDING)
def test_table_has_the_pinned_columns_and_passes_its_own_check(protocol: str) -> None:
    split = make_split(design(), protocol, folds=3)
    assert list(split.table.columns) == list(SPLIT_COLUMNS)
    assert split.table["fold"].dtype == np.int64
    check_splits(split.table)


@pytest.mark.parametrize("protocol", DIVIDING)
def test_each_cell_is_tested_exactly_once(protocol: str) -> None:
    table = make_split(design(datasets=2), protocol, folds=4).table
    tested = table[table["role"] == "test"]
    assert not tested.duplicated(["dataset", "cell"]).any()
    assert len(tested) == len(design(datasets=2).frame)


@given(
    seed=st.integers(0, 2**32 - 1),
    folds=st.integers(2, 5),
    copies=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=4),
    protocol=st.sampled_from(SOUND),
    validation=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_component_straddles_a_sound_fold(
    seed: int, folds: int, copies: list[tuple[int, int]], protocol: str, validation: bool
) -> None:
    cohort = design(12)
    frame = cohort.frame.copy()
    for a, b in copies:  # copied cells tie two donors
        frame.loc[a, "fingerprint"] = frame.loc[b, "fingerprint"]
    try:
        table = make_split(
            Design(frame), protocol, folds=folds, seed=seed, validation=validation
        ).table
    except DataError:
        return  # tied too much for this design; refusing is right, and tested by itself
    for tie in ("group", "donor", "sample"):
        assert (table.groupby(["fold", tie])["role"].nunique() == 1).all()
    merged = table.merge(frame[["cell", "fingerprint"]], on="cell")
    assert (merged.groupby(["fold", "fingerprint"])["role"].nunique() == 1).all()


@pytest.mark.parametrize("protocol", DIVIDING)
def test_order_of_the_cells_changes_nothing(protocol: str) -> None:
    cohort = design(datasets=2)
    shuffled = Design(cohort.frame.sample(frac=1, random_state=3))
    one, other = (make_split(d, protocol, folds=3, validation=False) for d in (cohort, shuffled))
    assert one.split_id == other.split_id
    pd.testing.assert_frame_equal(one.table, other.table)


@pytest.mark.parametrize("protocol", DIVIDING)
def test_seed_decides_the_split(protocol: str) -> None:
    ids = [make_split(design(10), protocol, folds=3, seed=seed).split_id for seed in (0, 0, 1, 2)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_seed_decides_the_split_of_groups_of_different_size() -> None:
    cohort = design(10)
    frame = cohort.frame[cohort.frame["cell"].str[-1].astype(int) <= [i // 10 for i in range(50)]]
    ids = {make_split(Design(frame), folds=3, seed=seed).split_id for seed in range(6)}
    assert len(ids) > 3


def test_every_fold_tests_both_labels() -> None:
    table = make_split(design(11, resistant=5), folds=5, seed=4).table
    tested = table[table["role"] == "test"]
    assert (tested.groupby("fold")["label"].nunique() == 2).all()


def test_folds_are_reduced_to_the_rarer_label_and_it_is_said() -> None:
    split = make_split(design(9, resistant=3), folds=5)
    assert split.table["fold"].nunique() == 3
    assert "3 folds instead of 5: only 3 groups have resistant cells" in notices(split)


def test_split_id_names_the_protocol_and_hashes_the_rows() -> None:
    one, other = (make_split(design(), name, folds=3) for name in ("pooled-group", "within"))
    assert one.split_id.startswith("pooled-group-")
    assert one.split_id.rpartition("-")[2] != other.split_id.rpartition("-")[2]
    assert set(one.table["split_id"]) == {one.split_id}


def test_copies_across_datasets_never_straddle() -> None:
    cohort = change(design(datasets=2), slice(0, 5), donor="a", sample="a", fingerprint="same")
    cohort = change(cohort, slice(40, 45), donor="b", sample="b", fingerprint="same")
    for seed in range(5):
        split = make_split(cohort, folds=3, seed=seed)
        copied = split.table[split.table["donor"].isin(["a", "b"])]
        assert copied["group"].nunique() == 1
        assert (copied.groupby("fold")["role"].nunique() == 1).all()
    assert "9 cells are copies of another cell" in notices(split)


def test_paper_split_divides_cells_of_one_donor_and_warns() -> None:
    split = make_split(design(), "paper-pooled", folds=5)
    assert (split.table.groupby(["fold", "donor"])["role"].nunique() == 2).any()
    assert "no evidence" in notices(split)


def test_within_trains_on_no_other_dataset() -> None:
    table = make_split(design(datasets=3), "within", folds=2).table
    assert (table.groupby("fold")["dataset"].nunique() == 1).all()
    assert table["fold"].nunique() == 6


def test_within_leaves_out_a_dataset_that_cannot_be_divided_and_says_so() -> None:
    cohort = design(datasets=2)
    lonely = (cohort.frame["dataset"] == "d1") & (cohort.frame["label"] == "sensitive")
    cohort = change(cohort, list(np.flatnonzero(lonely)), donor="x", sample="x")
    split = make_split(cohort, "within", folds=2)
    assert set(split.table["dataset"]) == {"d0"}
    assert "left out: dataset d1: confounded design" in notices(split)


def test_within_is_refused_when_no_dataset_can_be_divided() -> None:
    with pytest.raises(DataError, match=r"dataset d0: confounded .* 1 more likewise"):
        make_split(design(2, datasets=2), "within")


@pytest.mark.parametrize("protocol", SOUND)
def test_sound_split_refuses_a_confounded_design(protocol: str) -> None:
    with pytest.raises(DataError, match="confounded") as stop:
        make_split(design(2), protocol)
    assert "paper-pooled" in stop.value.hint


def test_paper_split_of_a_confounded_design_runs_with_the_reason() -> None:
    split = make_split(design(2), "paper-pooled")
    assert "confounded design" in notices(split)
    assert "a sound protocol refuses it" in notices(split)


@pytest.mark.parametrize("protocol", SOUND)
def test_a_single_group_is_refused(protocol: str) -> None:
    cohort = change(design(), slice(None), donor="x", sample="x")
    with pytest.raises(DataError, match="belong to one group"):
        make_split(cohort, protocol)


@pytest.mark.parametrize(("column", "option"), [("donor", "--group"), ("sample", "--sample")])
def test_missing_origin_is_an_error_in_a_sound_split(column: str, option: str) -> None:
    with pytest.raises(DataError, match=f"1 of 40 cells have no {column}, 'c0_0'") as stop:
        make_split(change(design(), [0], **{column: ""}))
    assert option in stop.value.hint


def test_sound_split_without_any_group_asks_for_the_option() -> None:
    cohort = change(design(), slice(None), donor="", sample="")
    with pytest.raises(UsageError, match="needs to know which cells belong together") as stop:
        make_split(cohort)
    assert "--group" in stop.value.hint


def test_paper_split_needs_no_groups() -> None:
    cohort = change(design(), slice(None), donor="", sample="")
    assert make_split(cohort, "paper-pooled").table["group"].nunique() == 1


@pytest.mark.parametrize("protocol", DIVIDING)
@pytest.mark.parametrize("label", ["sensitive", "resistant"])
def test_one_class_is_refused(protocol: str, label: str) -> None:
    with pytest.raises(DataError, match=f"all 40 labelled cells are {label}"):
        make_split(change(design(), slice(None), label=label), protocol)


def test_a_design_without_a_labelled_cell_is_refused() -> None:
    with pytest.raises(DataError, match="no cell has a label"):
        make_split(Design(design().frame.iloc[:0]))


def test_cells_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="1 cell names occur twice, 'c0_0'"):
        make_split(change(design(), [1], cell="c0_0"))


def test_one_cell_per_donor_is_fine() -> None:
    assert make_split(design(10, 1), folds=5).table["fold"].nunique() == 5


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean pooled-group") as stop:
        make_split(design(), "pooled-groups")
    assert "within" in stop.value.hint


@pytest.mark.parametrize(("folds", "seed"), [(1, 0), (0, 0), (3, -1), (3, 2**32)])
def test_impossible_numbers_are_refused(folds: int, seed: int) -> None:
    with pytest.raises(UsageError):
        make_split(design(), folds=folds, seed=seed)


def test_without_validation_there_is_none() -> None:
    assert set(make_split(design(), folds=2).table["role"]) == {"train", "test"}


def test_validation_is_a_fifth_of_the_training_groups_with_both_labels() -> None:
    table = make_split(design(50), folds=5, validation=True).table
    for _, fold in table.groupby("fold"):
        held = fold[fold["role"] == "validation"]
        assert held["group"].nunique() == 8  # of 40
        assert held["label"].nunique() == 2
        assert fold.groupby("group")["role"].nunique().max() == 1


def test_validation_changes_no_test_cell() -> None:
    plain, held = (make_split(design(20), validation=v).table for v in (False, True))
    tests = [t[t["role"] == "test"][["cell", "fold"]].to_numpy().tolist() for t in (plain, held)]
    assert tests[0] == tests[1]


def test_validation_of_too_few_groups_is_refused() -> None:
    with pytest.raises(DataError, match="too few for a validation part") as stop:
        make_split(design(4), folds=2, validation=True)
    assert "--validation" in stop.value.hint


def test_validation_of_the_paper_split_is_a_fifth_of_the_training_cells() -> None:
    table = make_split(design(), "paper-pooled", folds=4, validation=True).table
    share = table.groupby("fold")["role"].value_counts(normalize=True).unstack()
    assert share["validation"].between(0.12, 0.18).all()  # a fifth of three quarters


def test_small_test_sets_are_announced() -> None:
    assert "fold 0 (not evaluable" in notices(make_split(design(), folds=4))


def test_summary_counts_cells_and_groups() -> None:
    rows = make_split(design(8), folds=4).summary()
    first = rows[0]
    assert (first["fold"], first["role"], first["cells"], first["groups"]) == (0, "test", 10, 2)
    assert (first["sensitive"], first["groups_resistant"]) == (5, 1)
    assert sum(row["cells"] for row in rows) == 4 * 40


def test_lines_show_each_fold() -> None:
    lines = make_split(design(8), folds=4).lines()
    assert "40 cells in 8 groups, 4 folds" in lines[0]
    assert len(lines) == 2 + 8


def test_permuted_labels_stay_whole_in_groups_and_keep_their_number() -> None:
    cohort = design(20)
    permuted = permute_labels(cohort, 1).frame
    assert (permuted.groupby("donor")["label"].nunique() == 1).all()
    assert (permuted["label"] == "sensitive").sum() == (cohort.frame["label"] == "sensitive").sum()
    assert not permuted["label"].equals(cohort.frame["label"])
    columns = [c for c in permuted if c != "label"]
    pd.testing.assert_frame_equal(permuted[columns], cohort.frame[columns])


def test_permutation_is_decided_by_its_seed_and_named() -> None:
    labels = [tuple(permute_labels(design(20), seed).frame["label"]) for seed in (0, 0, 1)]
    assert labels[0] == labels[1] != labels[2]
    assert "labels permuted over 20 groups (seed 1)" in permute_labels(design(20), 1).notices[-1]


def test_permutation_gives_a_group_with_both_labels_one() -> None:
    mixed = change(design(10), [0, 1], label="sensitive")  # 2 of 5 cells of a resistant donor
    permuted = permute_labels(mixed, 0).frame
    assert (permuted.groupby("donor")["label"].nunique() == 1).all()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=f"--seed {seed} is not between 0 and"):
        make_split(design(), "pooled-group", seed=seed)
