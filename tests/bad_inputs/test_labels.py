"""Labels that cannot be used as they are: what the map of labels says of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.labels import LabelMap, require_column
from scdrugmap.errors import DataError, UsageError


def test_a_missing_column_is_answered_with_the_nearest_names() -> None:
    obs = pd.DataFrame({"Response": ["a"], "patient": ["p"], "batch": ["b"]})

    with pytest.raises(UsageError) as error:
        require_column(obs, "respons", "--label", "cells.h5ad")

    assert error.value.message == "cells.h5ad has no column 'respons' in obs (--label)"
    assert error.value.hint == "did you mean Response? obs has: Response, patient, batch"


def test_a_third_label_is_named_with_the_options_that_settle_it() -> None:
    labels = pd.Series(["sensitive", "resistant", "persistent", "persistent"], name="response")

    with pytest.raises(DataError) as error:
        LabelMap.parse().apply(labels, where="cells.h5ad")

    assert error.value.message == (
        "cells.h5ad: 'response' holds labels without a meaning: persistent (2 cells); "
        "expected sensitive, resistant"
    )
    assert "--sensitive" in error.value.hint
    assert "--drop 'persistent'" in error.value.hint


def test_many_strange_labels_are_not_all_listed() -> None:
    labels = pd.Series([f"ic50_{i}" for i in range(20)], name="response")

    with pytest.raises(DataError, match="and 14 more"):
        LabelMap.parse().apply(labels, where="f")


@pytest.mark.parametrize("missing", [None, np.nan, "", "nan", pd.NA])
def test_cells_without_label_are_set_aside_and_counted(missing: object) -> None:
    labels = pd.Series(["sensitive", missing, "resistant", missing], name="response")

    found = LabelMap.parse().apply(labels, where="cells.h5ad")

    assert list(found.values) == ["sensitive", "", "resistant", ""]
    assert found.n_missing == 2
    assert found.notices == ("cells.h5ad: 2 cells without response are set aside",)


def test_a_column_without_any_label_is_refused() -> None:
    with pytest.raises(DataError) as error:
        LabelMap.parse().apply(pd.Series([None, "nan"], name="response"), where="cells.h5ad")

    assert "no cell has a label in 'response' (2 are missing" in error.value.message
    assert "--label" in error.value.hint


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0, 1], "0 and 1"), ([0.0, 1.0], "0 and 1"), ([False, True], "false and true")],
)
def test_two_numbers_do_not_say_which_is_sensitive(values: list, shown: str) -> None:
    with pytest.raises(DataError) as error:
        LabelMap.parse().apply(pd.Series(values, name="response"), where="cells.h5ad")

    assert error.value.message == f"cells.h5ad: 'response' holds {shown}: which one is sensitive?"
    assert "--sensitive" in error.value.hint
