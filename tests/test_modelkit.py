"""What plugins build on: binding, randomness, tokens, padding, blocks, keys."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

import scdrugmap.modelkit as modelkit
from scdrugmap.data.genes import Genes
from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import (
    Attention,
    KeyMap,
    PostNormLayer,
    PreNormLayer,
    SequenceModel,
    Tokens,
    Traits,
    bind_genes,
    cell_keys,
    columns_of,
    generator,
    known_values,
    load_strict,
    pad,
    pool_mean,
    randomize,
    sample_tokens,
    seeded,
    synthetic_vocabulary,
    token_keys,
)


def test_a_tokenizer_can_import_what_it_needs_without_torch() -> None:
    code = (
        "import sys; from scdrugmap.modelkit import Tokens, bind_genes, cell_keys, sample_tokens; "
        "print(sorted({'torch', 'pandas', 'anndata', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in modelkit.__all__ if not hasattr(modelkit, name)] == []
    assert set(modelkit.__all__) <= set(dir(modelkit))


def genes(names: list[str]) -> Genes:
    return Genes.from_names(names)


def test_published_names_win_over_mapped_ones() -> None:
    # TP53 stands in the file under its own name and, under an alias, a second time.
    found = Genes(
        np.array(["P53", "TP53", "ACTB"], object),
        np.array(["TP53", "TP53", "ACTB"], object),
        np.array(["ENSG00000141510"] * 2 + ["ENSG00000075624"], object),
    )
    ids, coverage = bind_genes({"TP53": 4, "ACTB": 9}, found, "symbol")
    assert ids.tolist() == [-1, 4, 9]
    assert (coverage.n_genes, coverage.n_matched, coverage.n_vocabulary) == (3, 2, 2)
    assert coverage.matched.tolist() == [False, True, True]


def test_ensembl_ids_of_a_file_find_a_vocabulary_of_symbols() -> None:
    ids, _ = bind_genes({"TP53": 4}, genes(["ENSG00000141510", "ENSG00000075624"]), "symbol")
    assert ids.tolist() == [4, -1]


def test_older_symbols_of_a_vocabulary_are_found() -> None:
    # ATP5E was renamed ATP5F1E: vocabularies of 2018 have the first.
    ids, _ = bind_genes({"ATP5E": 3, "ACTB": 1}, genes(["ATP5F1E", "ACTB"]), "symbol")
    assert ids.tolist() == [3, 1]


def test_two_older_symbols_of_one_gene_are_not_guessed_between() -> None:
    resolved = Genes.from_names(["ATP5E", "ATP5F1E"], kind="symbol").ensembl
    assert resolved[0] == resolved[1]
    ids, _ = bind_genes({"ATP5E": 3, "atp5e": 5}, genes(["ENSG00000124172"]), "symbol")
    assert ids.tolist() == [-1]


def test_symbols_of_a_file_find_a_vocabulary_of_ensembl_ids() -> None:
    ids, _ = bind_genes({"ENSG00000141510": 4}, genes(["TP53", "no such gene"]), "ensembl")
    assert ids.tolist() == [4, -1]


def test_case_is_folded_only_when_asked() -> None:
    file = Genes(*(np.array(part, object) for part in (["Tp53"], [""], [""])))
    assert bind_genes({"TP53": 4}, file, "symbol")[0].tolist() == [-1]
    assert bind_genes({"TP53": 4}, file, "symbol", fold_case=True)[0].tolist() == [4]
    # Of names that differ in case alone the first counts.
    ids, _ = bind_genes({"tp53": 1, "TP53": 2}, file, "symbol", fold_case=True)
    assert ids.tolist() == [1]


def test_synthetic_vocabulary_is_fixed_and_unique() -> None:
    for kind in ("symbol", "ensembl"):
        names = synthetic_vocabulary(kind)  # type: ignore[arg-type]
        assert names == synthetic_vocabulary(kind)  # type: ignore[arg-type]
        assert len(set(names)) == len(names) > 10_000


def test_cell_keys_depend_on_seed_name_and_draw_only() -> None:
    keys = cell_keys(0, ["a", "b", "é\udcff"])
    assert keys.dtype == np.uint64
    assert len(set(keys.tolist())) == 3
    assert cell_keys(0, np.array(["b"], object))[0] == keys[1]
    assert cell_keys(1, ["b"])[0] != keys[1]
    assert cell_keys(0, ["b"], draw=1)[0] != keys[1]
    assert cell_keys(0, []).tolist() == []


def test_token_keys_differ_between_tokens_and_broadcast_over_cells() -> None:
    keys = cell_keys(0, ["a", "b"])
    table = token_keys(keys[:, None], np.arange(1000)[None])
    assert table.shape == (2, 1000)
    assert len(np.unique(table)) == 2000
    np.testing.assert_array_equal(table[1], token_keys(keys[1], np.arange(1000)))


@pytest.mark.parametrize("k", [1, 2, 50, 99, 100])
def test_sample_has_the_asked_size_and_ignores_order(k: int) -> None:
    key = cell_keys(0, ["a"])[0]
    ids = np.arange(100, dtype=np.int32) * 600
    chosen = sample_tokens(key, ids, k)
    assert len(chosen) == k
    assert (np.diff(chosen) > 0).all()
    order = np.random.default_rng(0).permutation(100)
    assert set(ids[order][sample_tokens(key, ids[order], k)]) == set(ids[chosen])


def test_sample_takes_pairs_of_tokens_equally_often() -> None:
    n_cells, n_tokens, k = 6000, 12, 4
    together = np.zeros((n_tokens, n_tokens))
    for key in cell_keys(3, [str(cell) for cell in range(n_cells)]):
        chosen = sample_tokens(key, np.arange(n_tokens), k)
        together[np.ix_(chosen, chosen)] += 1
    probability = k * (k - 1) / (n_tokens * (n_tokens - 1))
    expected, spread = n_cells * probability, np.sqrt(n_cells * probability)
    pairs = together[np.triu_indices(n_tokens, 1)]
    assert abs(pairs - expected).max() < 5 * spread


def test_generators_of_a_cell_repeat_and_touch_no_global_state() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (generator(0, name).random(3) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def ragged() -> Tokens:
    return Tokens(
        np.array([0, 2, 2, 5]),
        {"id": np.array([5, 6, 7, 8, 9], np.int32), "xy": np.arange(10.0).reshape(5, 2)},
        {"usable": np.array([True, False, True]), "depth": np.array([1.0, 2.0, 3.0])},
    )


def test_taking_cells_keeps_their_tokens() -> None:
    tokens = ragged()
    taken = tokens.take(np.array([2, 0, 2]))
    assert taken.start.tolist() == [0, 3, 5, 8]
    assert taken.flat["id"].tolist() == [7, 8, 9, 5, 6, 7, 8, 9]
    assert taken.cell["depth"].tolist() == [3, 1, 3]
    assert taken.usable.tolist() == [True, True, True]
    assert tokens.take(np.array([], int)).n_cells == 0
    assert tokens.usable.tolist() == [True, False, True]


def test_joining_blocks_gives_the_whole() -> None:
    tokens = ragged()
    joined = Tokens.concatenate([tokens.take(np.array([0])), tokens.take(np.array([1, 2]))])
    assert joined.start.tolist() == tokens.start.tolist()
    assert joined.flat["xy"].tolist() == tokens.flat["xy"].tolist()


def test_cells_are_usable_unless_marked() -> None:
    assert Tokens(np.array([0, 1]), {}, {}).usable.tolist() == [True]


def test_padding_fills_to_the_longest_and_marks_what_is_real() -> None:
    batch = pad(ragged(), {"id": 99, "xy": -1.0})
    assert batch["id"].tolist() == [[5, 6, 99], [99, 99, 99], [7, 8, 9]]
    assert batch["id"].dtype == torch.int32
    assert batch["xy"].shape == (3, 3, 2)
    assert batch["xy"][0, 2].tolist() == [-1, -1]
    assert batch["keep"].tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_equal_lengths_need_no_mask() -> None:
    assert set(pad(ragged().take(np.array([2, 2])), {"id": 0})) == {"id"}


def test_sequence_model_pads_and_counts_tokens() -> None:
    model = SequenceModel(Traits(4, None), None, nn.Identity(), "", {"id": 0})  # type: ignore[arg-type]
    assert model.collate(ragged())["id"].shape == (3, 3)
    assert model.cost(ragged()).tolist() == [2, 0, 3]


def test_attention_equals_the_stock_one() -> None:
    with seeded(0):
        ours, stock = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
        x = torch.randn(2, 5, 12)
    parts = [getattr(ours, f"{part}_proj") for part in "qkv"]
    with torch.no_grad():
        stock.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        stock.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        stock.out_proj.load_state_dict(ours.out_proj.state_dict())
    keep = torch.tensor([[True] * 5, [True, True, True, False, False]])
    expected, _ = stock(x, x, x, key_padding_mask=~keep)
    torch.testing.assert_close(ours(x, keep), expected)
    torch.testing.assert_close(ours(x)[0], expected[0])


def test_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 cannot be split into 3 heads"):
        Attention(10, 3)


def test_first_positions_of_a_layer_equal_the_full_path() -> None:
    with seeded(0):
        layer, x = PostNormLayer(12, 3, 7, F.gelu).eval(), torch.randn(2, 5, 12)
    keep = torch.tensor([[True] * 5, [True, True, True, False, False]])
    torch.testing.assert_close(layer(x, keep, positions=2), layer(x, keep)[:, :2])


def test_layer_equals_the_stock_one() -> None:
    with seeded(0):
        ours = PostNormLayer(12, 3, 7, F.relu).eval()
        stock = nn.TransformerEncoderLayer(12, 3, 7, 0.0, batch_first=True).eval()
        x = torch.randn(2, 5, 12)
    parts = [getattr(ours.attention, f"{part}_proj") for part in "qkv"]
    with torch.no_grad():
        stock.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        stock.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        pairs = [
            (stock.self_attn.out_proj, ours.attention.out_proj),
            (stock.linear1, ours.feed_forward.linear1),
            (stock.linear2, ours.feed_forward.linear2),
            (stock.norm1, ours.norm1),
            (stock.norm2, ours.norm2),
        ]
        for theirs, mine in pairs:
            theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(ours(x), stock(x))


def test_pre_norm_layer_equals_the_stock_one_with_and_without_a_causal_mask() -> None:
    with seeded(0):
        stock = nn.TransformerEncoderLayer(12, 3, 7, 0.0, batch_first=True, norm_first=True).eval()
        x = torch.randn(2, 5, 12)
    for causal in (False, True):
        ours = PreNormLayer(12, 3, 7, F.relu, causal=causal).eval()
        with torch.no_grad():
            for place, part in enumerate("qkv"):
                projection = getattr(ours.attention, f"{part}_proj")
                projection.weight.copy_(stock.self_attn.in_proj_weight.chunk(3)[place])
                projection.bias.copy_(stock.self_attn.in_proj_bias.chunk(3)[place])
        ours.attention.out_proj.load_state_dict(stock.self_attn.out_proj.state_dict())
        for name in ("linear1", "linear2"):
            getattr(ours.feed_forward, name).load_state_dict(getattr(stock, name).state_dict())
        for name in ("norm1", "norm2"):
            getattr(ours, name).load_state_dict(getattr(stock, name).state_dict())
        mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
        torch.testing.assert_close(ours(x), stock(x, mask, is_causal=causal))


def test_pre_norm_layer_ignores_masked_positions() -> None:
    with seeded(0):
        layer, x = PreNormLayer(12, 3, 7, F.gelu).eval(), torch.randn(2, 5, 12)
    keep = torch.tensor([[True, True, True, False, False]] * 2)
    torch.testing.assert_close(layer(x, keep)[:, :3], layer(x[:, :3]))


def test_causal_attention_does_not_see_later_positions() -> None:
    with seeded(0):
        attention, x = Attention(12, 3, causal=True), torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(x)[:, :3], attention(x[:, :3]))
    torch.testing.assert_close(attention(x, query=x[:, :2]), attention(x)[:, :2])


def test_dropout_acts_while_training_only() -> None:
    with seeded(0):
        layer, x = PostNormLayer(12, 3, 7, F.relu, dropout=0.5), torch.randn(1, 5, 12)
        layer.eval()
        torch.testing.assert_close(layer(x), layer(x))
        layer.train()
        assert not torch.allclose(layer(x), layer(x))


def test_the_parts_of_a_layer_may_drop_differently_and_normalise_by_another_eps() -> None:
    layer = PostNormLayer(
        12, 3, 7, F.relu, 0.5, attention_dropout=0.25, inner_dropout=0.0, eps=1e-12
    )
    assert layer.dropout.p == 0.5
    assert layer.attention.dropout == 0.25
    assert layer.feed_forward.dropout.p == 0.0
    assert layer.norm1.eps == layer.norm2.eps == 1e-12
    plain = PostNormLayer(12, 3, 7, F.relu, 0.5)
    assert plain.attention.dropout == plain.feed_forward.dropout.p == 0.5


def test_mean_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert pool_mean(hidden, torch.tensor([[True, True, False]])).item() == 2
    assert pool_mean(hidden).item() == pytest.approx(104 / 3)


KEYS = KeyMap(
    [
        (r"(?:module\.)?block\.(\d+)\.qkv", (r"b.\1.q", r"b.\1.k", r"b.\1.v")),
        (r"(?:module\.)?norm", "n"),
        (r"head\..*", None),
    ]
)


def test_keys_are_renamed_split_and_dropped() -> None:
    fused = torch.arange(12.0).reshape(6, 2)
    ours = KEYS.apply(
        {"module.block.3.qkv": fused, "norm": torch.tensor(1.0), "head.x": torch.ones(1)}, "f"
    )
    assert list(ours) == ["b.3.q", "b.3.k", "b.3.v", "n"]
    torch.testing.assert_close(torch.cat([ours[f"b.3.{part}"] for part in "qkv"]), fused)


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({f"odd{n}": torch.ones(1) for n in range(10)}, r"f: 10 tensors are not .* and 2 more"),
        ({"norm": torch.ones(1), "module.norm": torch.ones(1)}, "and another tensor both mean n"),
        ({"block.0.qkv": torch.ones(4, 2)}, "has 4 rows, not 3 equal parts"),
        ({"block.0.qkv": torch.tensor(1.0)}, "has 0 rows, not 3 equal parts"),
        ({"norm": 3}, "norm is a int, not a tensor"),
        ({7: torch.ones(1)}, "not part of this model: 7"),
    ],
)
def test_keys_that_do_not_fit_are_an_error(published: dict, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        KEYS.apply(published, "f")


def test_loading_lists_what_is_missing_and_what_is_too_much() -> None:
    with pytest.raises(WeightsError, match="1 tensors are missing: bias; 1 tensors do not belong"):
        load_strict(nn.Linear(2, 1), {"weight": torch.ones(1, 2), "more": torch.ones(1)}, "f")


def test_loading_converts_precision_but_not_kind() -> None:
    layer = nn.Linear(2, 1)
    load_strict(
        layer,
        {"weight": torch.ones(1, 2, dtype=torch.float64), "bias": torch.ones(1).bfloat16()},
        "f",
    )
    assert layer.weight.dtype == layer.bias.dtype == torch.float32
    with pytest.raises(WeightsError, match=r"weight is torch\.int64"):
        load_strict(layer, {"weight": torch.ones(1, 2).long(), "bias": torch.ones(1)}, "f")


def test_seeded_block_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    with seeded(1):
        first = torch.rand(2)
    with seeded(1):
        assert torch.equal(first, torch.rand(2))
    assert torch.equal(state, torch.random.get_rng_state())


class Outer(nn.Module):
    """Has the last word over its table, and parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.plain = Plain()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.table.weight, 7.0)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.full((40, 50), 9.0))
        self.scale_weight = nn.Parameter(torch.full((3,), 9.0))
        self.shift = nn.Parameter(torch.full((3,), 9.0))


def test_randomize_redraws_everything_and_lets_the_outer_module_decide() -> None:
    first, again, other = Outer(), Outer(), Outer()
    for module, seed in ((first, 3), (again, 3), (other, 4)):
        randomize(module, seed)
    assert (first.table.weight == 7).all()
    assert torch.equal(first.plain.matrix, again.plain.matrix)
    assert not torch.equal(first.plain.matrix, other.plain.matrix)
    assert float(first.plain.matrix.std().detach()) == pytest.approx(0.02, rel=0.1)
    assert first.plain.scale_weight.tolist() == [1, 1, 1]
    assert first.plain.shift.tolist() == [0, 0, 0]


def test_columns_of_ids_and_the_values_of_known_genes() -> None:
    ids = np.array([2, -1, 0, 2], np.int64)
    assert columns_of(ids, 4).tolist() == [2, -1, 0, -1]
    rows = sparse.csr_matrix(np.array([[5, 6, 7, 0], [0, 8, 0, 0]], np.float32))
    known = known_values(rows, np.array([2, -1, 0, -1]), 3)
    assert known.toarray().tolist() == [[7, 0, 5], [0, 0, 0]]
    assert known.indices.tolist() == [0, 2]
    assert known.dtype == np.float64
