"""Which cells belong together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.evaluation.groups import connect_cells, describe_ties, design_fault

CLASSES = ("sensitive", "resistant")


def cells(**columns: list[str]) -> pd.DataFrame:
    """Make cells that share nothing but what `columns` say."""
    n = len(next(iter(columns.values())))
    own = [str(i) for i in range(n)]
    frame = pd.DataFrame(
        {
            "dataset": ["d"] * n,
            "cell": [f"c{i}" for i in own],
            "sample": [f"s{i}" for i in own],
            "donor": [f"p{i}" for i in own],
            "study": ["d"] * n,
            "label": (["sensitive", "resistant"] * n)[:n],
            "fingerprint": own,
        },
        dtype=object,
    )
    return frame.assign(**{name: np.array(values, object) for name, values in columns.items()})


def sets(frame: pd.DataFrame) -> set[frozenset[str]]:
    groups = pd.Series(connect_cells(frame)).groupby(connect_cells(frame)).indices
    return {frozenset(frame["cell"].iloc[rows]) for rows in groups.values()}


@pytest.mark.parametrize("column", ["donor", "sample", "cell_line", "control", "fingerprint"])
def test_cells_with_one_value_in_a_column_form_one_group(column: str) -> None:
    frame = cells(**{column: ["a", "b", "a", "c"]})
    assert sets(frame) == {frozenset({"c0", "c2"}), frozenset({"c1"}), frozenset({"c3"})}


def test_ties_of_different_kinds_chain() -> None:
    frame = cells(
        donor=["p", "p", "q", "r"], sample=["1", "2", "2", "4"], fingerprint=["a", "b", "c", "c"]
    )
    assert len(sets(frame)) == 1


def test_same_donor_name_in_two_studies_is_two_donors() -> None:
    frame = cells(donor=["p", "p"], study=["x", "y"])
    assert list(connect_cells(frame)) == ["x/p", "y/p"]


@pytest.mark.parametrize("column", ["control", "fingerprint"])
def test_copies_and_controls_tie_across_studies(column: str) -> None:
    frame = cells(**{column: ["a", "a"]}, study=["x", "y"], dataset=["x", "y"])
    assert len(sets(frame)) == 1


@pytest.mark.parametrize("column", ["cell_line", "control", "fingerprint"])
def test_empty_values_tie_nothing(column: str) -> None:
    assert len(sets(cells(**{column: ["", "", ""]}))) == 3


def test_cells_of_unknown_origin_are_one_group_per_study() -> None:
    frame = cells(donor=["", "", ""], sample=["", "", ""], study=["x", "x", "y"])
    assert sets(frame) == {frozenset({"c0", "c1"}), frozenset({"c2"})}


def test_group_is_named_after_its_first_donor() -> None:
    frame = cells(donor=["q", "p", "z"], sample=["1", "1", "3"])
    assert list(connect_cells(frame)) == ["p", "p", "z"]


@given(
    donor=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=12),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_groups_do_not_depend_on_the_order_of_cells(donor: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    n = len(donor)
    frame = cells(
        donor=donor,
        sample=[str(i) for i in random.integers(0, 2 * n, n)],
        fingerprint=[str(i) for i in random.integers(0, 2 * n, n)],
    )
    order = random.permutation(n)
    assert list(connect_cells(frame)[order]) == list(connect_cells(frame.iloc[order]))


def test_number_of_copies_is_reported() -> None:
    frame = cells(fingerprint=["a", "a", "a", "b"], dataset=["x", "x", "y", "y"])
    (notice, other, _) = describe_ties(frame, connect_cells(frame))
    assert notice.startswith("2 cells are copies of another cell")
    assert "1 cells occur in several datasets" in notice
    assert other == "1 cells have copies with the other label: check the labels"


def test_sample_names_that_repeat_across_donors_are_reported() -> None:
    frame = cells(donor=["p", "p", "q", "q"], sample=["pre", "post", "pre", "post"])
    notices = describe_ties(frame, connect_cells(frame))
    assert any("samples hold cells of several donors" in notice for notice in notices)
    assert "2 donors form 1 groups" in notices[-1]


def test_clean_design_needs_no_words() -> None:
    frame = cells(donor=["p", "q", "r"])
    assert describe_ties(frame, connect_cells(frame)) == []


def fault(donor: list[str], label: list[str]) -> str:
    frame = cells(donor=donor, label=label)
    error = design_fault(frame.assign(group=connect_cells(frame)), CLASSES)
    return "" if error is None else f"{error.message} | {error.hint}"


def test_two_groups_of_each_class_are_a_sound_design() -> None:
    assert fault(["a", "b", "c", "d"], ["sensitive", "sensitive", "resistant", "resistant"]) == ""


def test_groups_that_hold_both_labels_count_for_both() -> None:
    assert fault(["a", "a", "b", "b"], ["sensitive", "resistant"] * 2) == ""


def test_a_single_group_is_a_fault() -> None:
    text = fault(["a"] * 4, ["sensitive", "resistant"] * 2)
    assert "all 4 cells belong to one group, 'a'" in text
    assert "--group must name the column" in text


def test_label_that_is_the_library_is_confounded() -> None:
    text = fault(["a", "a", "b", "b"], ["sensitive", "sensitive", "resistant", "resistant"])
    assert "confounded design: all sensitive cells come from one group, 'a'" in text
    assert "paper-pooled gives a number that is no evidence" in text


def test_one_lonely_group_of_a_class_is_confounded() -> None:
    text = fault(["a", "b", "c"], ["sensitive", "sensitive", "resistant"])
    assert "all resistant cells come from one group, 'c'" in text


def test_one_class_is_a_fault() -> None:
    assert "no cell is resistant" in fault(["a", "b"], ["sensitive", "sensitive"])
