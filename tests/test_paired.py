"""Paired tests against their textbook values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scdrugmap.evaluation.paired import effect_size, holm, nadeau_bengio, sign_flip, wilcoxon


def mean_of(gaps: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda signs: signs @ gaps / len(gaps)


def test_sign_flip_of_few_units_is_exact() -> None:
    gaps = np.array([0.1, 0.2, 0.3, 0.4, 0.5, -0.05])
    # as large as 1.45: all six as found, the small one turned, and both mirrored
    found = sign_flip(mean_of(gaps), 6, permutations=10, seed=0)
    assert found.p_value == pytest.approx(4 / 64)
    scipy = stats.permutation_test(
        (gaps,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert found.p_value == pytest.approx(scipy)


def test_sign_flip_of_many_units_is_close_to_exact_and_never_zero() -> None:
    random = np.random.default_rng(0)
    gaps = random.normal(0.3, 1, 16)
    many = sign_flip(mean_of(gaps), 16, permutations=20_000, seed=1).p_value
    bits = np.arange(2**16)[:, None] >> np.arange(16) & 1
    exact = (np.abs((1 - 2 * bits) @ gaps) >= abs(gaps.sum()) - 1e-9).mean()
    assert many == pytest.approx(exact, abs=0.01)
    sure = sign_flip(mean_of(np.full(40, 1.0)), 40, permutations=999, seed=1)
    assert sure.p_value == pytest.approx(1 / 1000)


def test_equal_models_have_a_p_value_of_one() -> None:
    assert sign_flip(mean_of(np.zeros(5)), 5, permutations=9, seed=0).p_value == 1


def test_few_units_say_how_small_p_can_get() -> None:
    assert (
        "p cannot fall below 0.12" in sign_flip(mean_of(np.ones(4)), 4, permutations=9, seed=0).note
    )
    assert "no test: 1 units" in sign_flip(mean_of(np.ones(1)), 1, permutations=9, seed=0).note


def test_sign_flip_keeps_its_level() -> None:
    rejected = 0
    for seed in range(200):
        gaps = np.random.default_rng(seed).normal(0, 1, 10)
        rejected += sign_flip(mean_of(gaps), 10, permutations=9, seed=0).p_value <= 0.05
    assert rejected <= 20  # 10 expected


def test_wilcoxon_is_that_of_scipy_without_equal_and_undefined_pairs() -> None:
    gaps = np.array([0.3, -0.1, 0.25, 0.0, np.nan, 0.4, 0.5, 0.35])
    expected = stats.wilcoxon(gaps[[0, 1, 2, 5, 6, 7]]).pvalue
    assert wilcoxon(gaps).p_value == pytest.approx(expected)
    assert np.isnan(wilcoxon(np.zeros(4)).p_value)


def test_nadeau_bengio_is_the_t_test_with_a_larger_variance() -> None:
    gaps = np.array([0.02, 0.05, 0.03, -0.01, 0.04])
    t = gaps.mean() / np.sqrt((1 / 5 + 1 / 4) * gaps.var(ddof=1))
    assert nadeau_bengio(gaps, 1 / 4).p_value == pytest.approx(2 * stats.t.sf(t, 4))
    assert nadeau_bengio(gaps, 1 / 4).p_value > stats.ttest_1samp(gaps, 0).pvalue
    assert nadeau_bengio(gaps, 0).p_value == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, np.nan, 0.9]) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert len(holm([])) == 0


def test_effect_size_is_the_mean_in_standard_deviations() -> None:
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert np.isnan(effect_size(np.array([1.0, 1.0])))
