"""What the labels of a user mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.labels import LabelMap, require_column, target
from scdrugmap.errors import DataError, UsageError


def column(*values: object) -> pd.Series:
    return pd.Series(list(values), name="response")


def test_the_two_words_count_without_a_map() -> None:
    labels = LabelMap.parse().apply(column("sensitive", " Resistant ", "SENSITIVE"), where="f")

    assert list(labels.values) == ["sensitive", "resistant", "sensitive"]
    assert labels.labelled.all()
    assert labels.notices == ()


def test_words_are_matched_whole_and_never_as_a_part() -> None:
    with pytest.raises(DataError, match=r"non-resistant \(1 cells\)"):
        LabelMap.parse().apply(column("resistant", "non-resistant"), where="f")


def test_a_map_translates_words_of_the_user() -> None:
    labels = LabelMap.parse(["PR", "CR"], ["pd "], ["SD"])

    found = labels.apply(column("pr", "CR", "PD", "SD"), where="f.h5ad")

    assert list(found.values) == ["sensitive", "sensitive", "resistant", ""]
    assert (found.n_missing, found.n_dropped) == (0, 1)
    assert found.notices == ("f.h5ad: 1 cells are set aside as told (sd)",)


def test_a_class_without_words_keeps_its_plain_name() -> None:
    found = LabelMap.parse(sensitive=["responder"]).apply(
        column("Responder", "resistant"), where="f"
    )

    assert list(found.values) == ["sensitive", "resistant"]


def test_categories_that_no_cell_has_do_not_matter() -> None:
    values = pd.Series(
        pd.Categorical(["sensitive", "resistant"], categories=["x", "resistant", "sensitive"]),
        name="response",
    )

    assert list(LabelMap.parse().apply(values, where="f").values) == ["sensitive", "resistant"]


def test_numbers_are_compared_as_they_are_written() -> None:
    found = LabelMap.parse(["1"], ["0"]).apply(column(1.0, 0.0, np.nan), where="f")

    assert list(found.values) == ["sensitive", "resistant", ""]


def test_target_is_one_for_sensitive() -> None:
    assert target(np.array(["sensitive", "resistant"], object)).tolist() == [1.0, 0.0]


def test_target_refuses_cells_that_are_set_aside() -> None:
    with pytest.raises(ValueError, match="must be sensitive or resistant"):
        target(np.array(["sensitive", ""], object))


def test_a_label_list_cannot_contradict_another() -> None:
    with pytest.raises(UsageError, match="'pd' stands in --resistant and in --drop"):
        LabelMap.parse([], ["PD"], ["pd"])


def test_a_column_is_found_by_its_name() -> None:
    obs = pd.DataFrame({"response": ["a"]})

    assert require_column(obs, "response", "--label", "f").tolist() == ["a"]


def test_a_column_without_any_label_is_refused() -> None:
    with pytest.raises(DataError, match=r"no cell has a label in 'response' \(2 are missing"):
        LabelMap.parse().apply(column(None, np.nan), where="f")


def test_values_that_are_true_or_false_ask_which_is_sensitive() -> None:
    with pytest.raises(DataError, match="'response' holds 0 and 1: which one is sensitive"):
        LabelMap.parse().apply(column(1, 0, 1), where="f")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("responce", "did you mean response"),
        ("Response", "did you mean response"),
        ("z", "obs has"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"f has no column '{name}' in obs .--label") as caught:
        require_column(pd.DataFrame({"response": ["a"], "depth": [1]}), name, "--label", "f")
    assert hint in caught.value.hint
    assert caught.value.hint.endswith("obs has: response, depth")
