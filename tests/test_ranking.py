"""Ranking the genes of a cell."""

from __future__ import annotations

import numpy as np
import pytest

from scdrugmap.modelkit import rank_tokens


def test_largest_values_come_first_and_equal_ones_by_id() -> None:
    values = np.array([1, 3, 1, 7, 3], np.float32)
    ids = np.array([50, 40, 10, 30, 20], np.int32)
    assert rank_tokens(values, ids, 9).tolist() == [3, 4, 1, 2, 0]


@pytest.mark.parametrize("most", [1, 2, 3, 17, 199, 200, 201, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cut_lists_are_the_start_of_the_sorted_list(most: int, dtype: type) -> None:
    random = np.random.default_rng(most)
    values: np.ndarray = random.poisson(1.5, 200).astype(dtype)
    ids = random.permutation(200)
    expected = sorted(range(200), key=lambda at: (-values[at], ids[at]))
    assert rank_tokens(values, ids, most).tolist() == expected[:most]


def test_order_of_the_columns_changes_nothing() -> None:
    random = np.random.default_rng(0)
    values, ids = random.poisson(1.5, 300).astype(np.float32), random.permutation(300)
    order = random.permutation(300)
    plain = ids[rank_tokens(values, ids, 60)]
    shuffled = ids[order][rank_tokens(values[order], ids[order], 60)]
    np.testing.assert_array_equal(plain, shuffled)


def test_cell_without_values_gives_an_empty_list() -> None:
    assert rank_tokens(np.empty(0, np.float32), np.empty(0, np.int64), 5).tolist() == []
