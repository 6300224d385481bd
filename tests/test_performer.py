"""Random-feature attention: what it estimates, how keys weigh, and what stays fixed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scdrugmap.modelkit import FavorAttention, PerformerLayer, performer

TOLERANCE = 2e-6
"""Sums in another order; results are about 1."""


def attention(seed: int = 0, **options: bool) -> FavorAttention:
    torch.manual_seed(seed)
    return FavorAttention(16, 2, 8, 20, **options)


def weighted(*pairs: tuple[float, float]) -> Tensor:
    """Weights of one cell: (1, T, 2)."""
    return torch.tensor([pairs])


def test_random_projection_has_orthogonal_rows_of_many_lengths() -> None:
    projection = FavorAttention(32, 2, 8, 20).projection
    for block in projection.split(8):
        gram = block @ block.T
        torch.testing.assert_close(gram, gram.diag().diag(), rtol=0, atol=1e-5)
    assert projection.norm(dim=1).std() > 0.1


def test_attention_without_the_floor_estimates_softmax_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(performer, "FLOOR", 0.0)
    torch.manual_seed(0)
    attention = FavorAttention(16, 2, 8, 2**16)
    x = torch.randn(1, 50, 16)
    q, k, v = (
        part(x).unflatten(-1, (2, 8)).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    exact = nn.functional.scaled_dot_product_attention(q, k, v)
    expected = attention.out_proj(exact.transpose(1, 2).flatten(2))
    found = attention(x)
    # The error falls with the root of the number of features: 0.04 with 2**12, 0.01 with 2**16;
    # directions over half of the sphere would leave one of 0.02.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)
    assert (expected - expected.mean(1, keepdim=True)).abs().max() > 0.1


def test_attention_without_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="no keys"):
        FavorAttention(16, 2, 8, 16).summarise([])


def test_features_stay_in_32_bits_where_the_network_is_run_with_16() -> None:
    attention = FavorAttention(16, 2, 8, 16)
    x = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention.summarise([x]).dtype == torch.float32
        found = attention(x).float()
    torch.testing.assert_close(found, attention(x), rtol=0, atol=0.02)


def test_a_weighted_key_stands_for_equal_ones() -> None:
    x = torch.randn(1, 4, 16)
    repeated = torch.cat([x, x[:, 3:], x[:, 3:]], 1)
    weight = weighted((1, 1), (1, 1), (1, 1), (3, 3))
    found = attention()(x, weight)
    torch.testing.assert_close(found, attention()(repeated)[:, :4], rtol=0, atol=TOLERANCE)
    assert (found - attention()(x)).abs().max() > 0.01


@pytest.mark.parametrize("tile", [1, 10**9])
def test_a_key_without_value_weighs_in_the_denominator(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(1, 4, 16)
    layer = attention()
    q, k, v = (part(x).unflatten(-1, (2, 8)) for part in (layer.q_proj, layer.k_proj, layer.v_proj))
    P, scale = layer.projection, 8**-0.25
    by_query = torch.einsum("bthd,md->bthm", q * scale, P)
    by_key = torch.einsum("bthd,md->bthm", k * scale, P)
    half = [part.square().sum(-1, keepdim=True) * scale**2 / 2 for part in (q, k)]
    phi_q = torch.exp(by_query - half[0] - by_query.amax(-1, keepdim=True)) + 1e-4
    phi_k = torch.exp(by_key - half[1] - by_key.max()) + 1e-4
    v[:, 3] = 0
    count = torch.tensor([1.0, 1.0, 1.0, 5.0])
    top = torch.einsum("bthm,bshm,bshd->bthd", phi_q, phi_k, v)
    below = torch.einsum("bthm,bshm,s->bth", phi_q, phi_k, count)
    expected = layer.out_proj((top / below.unsqueeze(-1)).flatten(2))
    monkeypatch.setattr(performer, "CPU_TILE", tile)
    found = layer(x, weighted((1, 1), (1, 1), (1, 1), (0, 5)))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_a_repeated_key_without_weight_changes_nothing() -> None:
    x = torch.randn(1, 4, 16)
    longer = torch.cat([x, x[:, :1]], 1)
    weight = weighted((1, 1), (1, 1), (1, 1), (1, 1), (0, 0))
    found = attention()(longer, weight)[:, :4]
    torch.testing.assert_close(found, attention()(x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [slice(1), slice(-1, None), slice(1, 3)])
def test_some_rows_read_what_all_rows_read(rows: slice) -> None:
    torch.manual_seed(0)
    layer = PerformerLayer(16, 2, 8, 20, 32, nn.functional.gelu)
    x, weight = torch.randn(2, 5, 16), torch.rand(2, 5, 2)
    found = layer(x, weight, rows=rows)
    torch.testing.assert_close(found, layer(x, weight)[:, rows], rtol=0, atol=TOLERANCE)


def test_queries_keys_and_values_may_have_biases() -> None:
    assert attention().k_proj.bias is None
    assert attention(bias=True).k_proj.bias.shape == (16,)
