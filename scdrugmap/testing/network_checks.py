"""Checks of the network: a cell's embedding depends on that cell alone, and everything learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.testing.checks import CheckFailed, CheckSkipped, check
from scdrugmap.testing.comparison import require_close
from scdrugmap.testing.dropout import dropout_off
from scdrugmap.testing.subject import Sample, Subject, mode

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_DISTANCE = 1e-6
_MOST_LISTED = 5


@check("a cell without a known gene is marked unusable and gets NaN; the others do not notice")
def check_unusable_cell(subject: Subject) -> None:
    """Empty one cell among the others."""
    import scipy.sparse as sp

    sample = subject.sample
    empty = len(sample.names) // 2
    keep = sp.diags((np.arange(len(sample.names)) != empty).astype(np.float32))  # (n, n)
    rows = (keep @ sample.rows).tocsr()
    rows.eliminate_zeros()
    rows.sort_indices()
    with_empty = Sample(rows, sample.genes, sample.names, sample.groups)
    usable = subject.encode(with_empty).usable
    others = np.arange(len(usable)) != empty
    if usable[empty]:
        raise CheckFailed("a cell without any count is not marked cell['usable'] = False")
    if not usable[others].all():
        raise CheckFailed(f"{(~usable[others]).sum()} cells with known genes are marked unusable")
    values = subject.embed(with_empty)
    if not np.isnan(values[empty]).all():
        raise CheckFailed("the row of the unusable cell is not NaN")
    if subject.spec.cell_batching == "group":  # its group is another one without it
        others &= sample.groups != sample.groups[empty]
    require_close(
        subject.embed(sample)[others], values[others], "beside an unusable cell, the embedding"
    )


@check("padding and the size of batches change nothing")
def check_padding_and_batch_size_change_nothing(subject: Subject) -> None:
    """Embed all cells in large batches, in small ones, and one by one (or group by group)."""
    sample = subject.sample
    whole = subject.embed(sample, token_budget=10**9)
    lengths = subject.encode(sample).lengths
    require_close(
        whole,
        subject.embed(sample, token_budget=int(lengths.max()) * 2),
        "in small batches, the embedding",
    )
    grouped = subject.spec.cell_batching == "group"
    keys = sample.groups if grouped else np.arange(len(sample.names))
    alone = np.full_like(whole, np.nan)
    for key in np.unique(keys):
        index = np.flatnonzero(keys == key)
        alone[index] = subject.embed(sample.take(index))
    require_close(whole, alone, f"{'group by group' if grouped else 'one by one'}, the embedding")


@check("embeddings are finite float32 of the promised width and differ between cells")
def check_output(subject: Subject) -> None:
    """Look at the embedding and at the network's own output."""
    import torch

    sample, dim = subject.sample, subject.model.traits.dim
    values = subject.embed(sample)
    if values.shape != (len(sample.names), dim):
        raise CheckFailed(f"the embedding is {values.shape}, not ({len(sample.names)}, dim={dim})")
    with mode(subject.model, training=False), torch.inference_mode():
        output = subject.forward(subject.model)
    if output.dtype != torch.float32:
        raise CheckFailed(f"the network returns {output.dtype}, not float32")
    if not np.isfinite(values).all():
        raise CheckFailed(f"{(~np.isfinite(values)).any(1).sum()} rows hold NaN or infinite values")
    distance = np.abs(values[:, None] - values[None]).max(2)  # (n, n)
    np.fill_diagonal(distance, np.inf)
    if distance.min() < _LEAST_DISTANCE:
        first, second = np.unravel_index(distance.argmin(), distance.shape)
        raise CheckFailed(f"cells {first} and {second} have the same embedding")


@check("eval() is deterministic")
def check_eval_is_deterministic(subject: Subject) -> None:
    """Embed twice with one model, and once with another build of it."""
    first = subject.embed(subject.sample)
    require_close(first, subject.embed(subject.sample), "the second time, the embedding", 1e-7)
    again = subject.embed(subject.sample, subject.build())
    require_close(first, again, "with the model built anew, the embedding", 1e-7)


@check("a gradient reaches every trainable parameter")
def check_gradients_reach_parameters(subject: Subject) -> None:
    """Do one backward pass over the cells of one group."""
    model = subject.build()
    trainable = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    if not trainable:
        raise CheckSkipped("the network has no trainable parameter")
    with mode(model, training=True), dropout_off():
        loss_of(subject.forward(model)).backward()
    without = [n for n, p in trainable.items() if p.grad is None or not bool(p.grad.any())]
    if without:
        shown = ", ".join(without[:_MOST_LISTED])
        raise CheckFailed(
            f"{len(without)} of {len(trainable)} trainable parameters get no gradient: {shown}; "
            "remove them, or set requires_grad to False"
        )
    bad = [
        n for n, p in trainable.items() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    if bad:
        raise CheckFailed(f"gradients are not finite: {', '.join(bad[:_MOST_LISTED])}")


@check("the state dict holds all of the network")
def check_state_dict_round_trip(subject: Subject) -> None:
    """Bring the tensors of one build into another of other seed, which has been used before."""
    import torch

    source, target = subject.build(), subject.build(subject.seed + 1)
    state = {name: tensor.clone() for name, tensor in source.module.state_dict().items()}
    if not state:
        raise CheckSkipped("the network has no tensors")
    with mode(source, training=False), mode(target, training=False), torch.inference_mode():
        batch = source.collate(subject.encode(subject.one_group(), source))
        expected = source.module(dict(batch))
        target.module(dict(batch))  # a network that caches what it read from its weights is caught
        target.module.load_state_dict(state, strict=True)
        seen = target.module(dict(batch))
    require_close(expected.numpy(), seen.numpy(), "after load_state_dict, the output")


def loss_of(output: Tensor) -> Tensor:
    """Return a scalar whose gradient reaches every component of (B, D) differently."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return (output * torch.randn(output.shape, generator=generator)).sum()
