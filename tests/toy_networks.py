"""Tokenizer and network of the toy model, correct and with each fault."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import Options

from scdrugmap.modelkit import (
    Coverage,
    PostNormLayer,
    SequenceModel,
    Tokens,
    Traits,
    bind_genes,
    cell_keys,
    pool_mean,
    seeded,
    synthetic_vocabulary,
    token_keys,
)

DIM, HEADS, HIDDEN = 16, 2, 32


class Tokenizer:
    """Gene id and log count; a cell that is too long is drawn by cell name."""

    def __init__(self, max_length: int, seed: int, fault: str) -> None:
        names = synthetic_vocabulary("symbol")
        self.vocabulary = {name: token for token, name in enumerate(names)}
        self.max_length, self.seed, self.fault = max_length, seed, fault
        self.ids = np.empty(0, np.int64)
        self.n_bound = 0

    def bind(self, genes) -> Coverage:
        ids, coverage = bind_genes(self.vocabulary, genes, "symbol")
        self.n_bound += 1
        if self.fault == "binding_remembers" and len(self.ids) > len(ids):
            ids = self.ids[: len(ids)]
        if self.fault == "tokens_of_unknown_genes":
            ids = np.where(ids < 0, len(self.vocabulary) - 1, ids)
        self.ids = ids
        if self.fault == "coverage":
            return Coverage(len(ids), len(ids) - 1, len(self.vocabulary), coverage.matched)
        return coverage

    def encode(self, rows, cells, draw: int = 0) -> Tokens:
        fault = self.fault
        if fault == "changes_input":
            np.log1p(rows.data, out=rows.data)
        if fault == "numpy_rng":
            np.random.seed(0)  # noqa: NPY002
        if fault == "python_rng":
            random.seed(0)
        scale = float(rows.data.max(initial=1)) if fault == "scales_by_block" else 1.0
        columns, values = [], []
        for place, key in enumerate(cell_keys(self.seed, cells, draw)):
            if fault == "draws_by_place":
                key = cell_keys(self.seed, [str(place)])[0]
            begin, end = rows.indptr[place], rows.indptr[place + 1]
            column, value = rows.indices[begin:end], rows.data[begin:end]
            known = self.ids[column] >= 0
            column, value = column[known], value[known] / scale
            if fault == "column_order":
                value = value * (1 + column / 100)
            if fault == "index_type":
                value = value + rows.indices.dtype.itemsize
            if len(column) > self.max_length and fault != "never_cuts":
                chance = token_keys(key, self.ids[column])
                if fault == "redraws":
                    chance = chance ^ np.uint64(self.n_bound * 0x9E3779B97F4A7C15 % 2**64)
                if fault == "draws_by_column":
                    chance = token_keys(key, column)
                kept = np.sort(np.argpartition(chance, self.max_length)[: self.max_length])
                column, value = column[kept], value[kept]
            columns.append(column)
            values.append(np.log1p(value))
        if fault == "last_of_block":
            values[-1] = values[-1] + 1
        lengths = np.array([len(column) for column in columns], np.int64)
        flat_column = np.concatenate(columns).astype(np.int32)
        usable = lengths > 0
        if fault == "all_usable":
            usable = np.ones(len(lengths), bool)
        start = np.concatenate([[0], np.cumsum(lengths)])
        flat = {
            "gene": self.ids[flat_column],
            "value": np.concatenate(values).astype(np.float32),
            "column": flat_column,
        }
        if fault == "no_column":
            del flat["column"]
        return Tokens(start.astype(np.int64), flat, {"usable": usable})


class Network(nn.Module):
    """The correct network."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.gene = nn.Embedding(n_genes, DIM)
        self.value = nn.Linear(1, DIM)
        self.layers = nn.ModuleList(
            PostNormLayer(DIM, HEADS, HIDDEN, F.gelu, dropout=0.2) for _ in range(2)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        keep = batch.get("keep")
        return pool_mean(self.trunk(self.tokens(batch), keep), keep)

    def tokens(self, batch: dict[str, Tensor]) -> Tensor:
        return self.gene(batch["gene"]) + self.value(batch["value"].unsqueeze(-1))

    def trunk(self, x: Tensor, keep: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, keep)
        return x


class GroupNetwork(Network):
    """Cells of a batch see each other."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        cells = super().forward(batch)
        return cells + cells.nanmean(0, keepdim=True)


class RemembersGroups(GroupNetwork):
    """A group sees the group before."""

    before: Tensor | float = 0.0

    def forward(self, batch):
        cells = super().forward(batch) + self.before
        self.before = cells.detach().mean(0)
        return cells


class PaddingAveraged(Network):
    def forward(self, batch):
        return self.trunk(self.tokens(batch), batch.get("keep")).mean(1)


class PaddingAttended(Network):
    def trunk(self, x, keep):
        return super().trunk(x, None)


class BatchNormalised(Network):
    def forward(self, batch):
        cells = super().forward(batch)
        return cells - cells.mean(0) if len(cells) > 1 else cells


class AlwaysDropout(Network):
    def forward(self, batch):
        return F.dropout(super().forward(batch), 0.1, training=True)


class DoublePrecision(Network):
    def forward(self, batch):
        return super().forward(batch).double()


class Constant(Network):
    def forward(self, batch):
        cells = super().forward(batch)
        return cells * 0 + self.gene.weight[0]


class TooWide(Network):
    def forward(self, batch):
        cells = super().forward(batch)
        return torch.cat([cells, cells], 1)


class Infinite(Network):
    def forward(self, batch):
        cells = super().forward(batch)
        return torch.where(cells > cells.max() - 1e-6, torch.nan, cells)


class UnusedParameter(Network):
    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.decoder = nn.Linear(DIM, 2)


class Detached(Network):
    def tokens(self, batch):
        return super().tokens(batch).detach()


class HiddenTensor(Network):
    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.hidden = torch.randn(DIM)

    def forward(self, batch):
        return super().forward(batch) + self.hidden


class CachesTable(Network):
    """Computes the gene table once, and keeps it after the weights have changed."""

    table: Tensor | None = None

    def tokens(self, batch):
        if self.table is None:
            self.table = self.gene.weight.detach() * 1.0
        return F.embedding(batch["gene"], self.table) + self.value(batch["value"].unsqueeze(-1))


class CachesAdapter(Network):
    """Computes a constant through an adapted layer once."""

    constant: Tensor | None = None

    def forward(self, batch):
        if self.constant is None or self.training:
            layer = self.layers[0].attention.q_proj
            self.constant = layer(torch.ones(1, DIM))
            if not self.training:
                self.constant = self.constant.detach()
        return super().forward(batch) + self.constant


class ReadsWeight(Network):
    """One adapted layer is bypassed: its weight is read."""

    def trunk(self, x, keep):
        first = self.layers[0]
        x = x + F.linear(x, first.attention.q_proj.weight)
        return self.layers[1](x, keep)


class WeakAdapter(Network):
    """The adapters of the first layer hardly enter."""

    def trunk(self, x, keep):
        return self.layers[1](x + 1e-5 * self.layers[0](x, keep), keep)


class AdapterGoneInEval(Network):
    """Calls a layer in train() and reads its weight in eval()."""

    def trunk(self, x, keep):
        layer = self.layers[0].feed_forward.linear1
        shifted = layer(x) if self.training else F.linear(x, layer.weight, layer.bias)
        x = super().trunk(x, keep)
        return x + shifted.mean(-1, keepdim=True)


class ShortCut(Network):
    """Reads a weight when no gradient is recorded."""

    def trunk(self, x, keep):
        layer = self.layers[0].feed_forward.linear1
        full = torch.is_grad_enabled()
        shifted = layer(x) if full else F.linear(x, layer.weight, layer.bias)
        return super().trunk(x, keep) + shifted.mean(-1, keepdim=True)


class ReadsWeightToo(Network):
    """Calls a layer, and reads its weight besides: merging changes the result."""

    def trunk(self, x, keep):
        layer = self.layers[0].feed_forward.linear1
        return super().trunk(x, keep) + F.linear(x, layer.weight).mean(-1, keepdim=True)


class StockLayers(Network):
    """Adapters in torch's own encoder layer vanish in eval()."""

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        layer = nn.TransformerEncoderLayer(DIM, HEADS, HIDDEN, batch_first=True)
        layer.attention = nn.Module()
        layer.attention.q_proj = nn.Linear(DIM, DIM)
        layer.feed_forward = nn.Module()
        layer.feed_forward.linear1 = nn.Linear(DIM, DIM)
        self.layers = nn.ModuleList([layer])

    def trunk(self, x, keep):
        return self.layers[0](x)


class NoTargets(Network):
    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(DIM, DIM), nn.GELU())])

    def trunk(self, x, keep):
        return self.layers[0](x)


class NoLayers(Network):
    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.blocks = self.layers
        del self.layers

    def trunk(self, x, keep):
        for layer in self.blocks:
            x = layer(x, keep)
        return x


class OpensSocket(Network):
    """Tries the network and goes on without it."""

    def forward(self, batch):
        with contextlib.suppress(OSError, RuntimeError):
            socket.create_connection(("198.51.100.7", 443), timeout=0.1)
        return super().forward(batch)


class TorchRandom(Network):
    def forward(self, batch):
        torch.rand(1)
        return super().forward(batch)


NETWORKS = {
    "padding_averaged": PaddingAveraged,
    "padding_attended": PaddingAttended,
    "batch_normalised": BatchNormalised,
    "always_dropout": AlwaysDropout,
    "double_precision": DoublePrecision,
    "constant": Constant,
    "too_wide": TooWide,
    "infinite": Infinite,
    "unused_parameter": UnusedParameter,
    "detached": Detached,
    "hidden_tensor": HiddenTensor,
    "caches_table": CachesTable,
    "caches_adapter": CachesAdapter,
    "reads_weight": ReadsWeight,
    "weak_adapter": WeakAdapter,
    "adapter_gone_in_eval": AdapterGoneInEval,
    "short_cut": ShortCut,
    "reads_weight_too": ReadsWeightToo,
    "stock_layers": StockLayers,
    "no_targets": NoTargets,
    "no_layers": NoLayers,
    "opens_socket": OpensSocket,
    "torch_rng": TorchRandom,
    "remembers_groups": RemembersGroups,
}


class HeavyOptions(Options):
    """Options that stand in a module which imports torch."""


def build(options: Options, weights: Path | None, seed: int) -> SequenceModel:
    """Build the toy, with its fault."""
    return _build(options, seed, NETWORKS.get(options.fault, Network))


def build_group(options: Options, weights: Path | None, seed: int) -> SequenceModel:
    """Build the toy whose cells see each other."""
    return _build(options, seed, NETWORKS.get(options.fault, GroupNetwork))


def _build(options: Options, seed: int, network: type[Network]) -> SequenceModel:
    fault = options.fault
    if fault == "needs_weights":
        raise FileNotFoundError("no weights")
    tokenizer = Tokenizer(options.max_length, seed, fault)
    with seeded(0 if fault == "ignores_seed" else seed):
        if fault == "draws_without_seed":
            torch.seed()
        module = network(len(tokenizer.vocabulary))
    traits = Traits(
        dim=DIM,
        max_tokens=options.max_length,
        stochastic=True,
        vocabulary_size=len(tokenizer.vocabulary),
    )
    padding = {"gene": 0, "value": 0.0}
    return SequenceModel(traits, tokenizer, module, "gene", padding)
