"""How likely a language model finds each of a few answers to a prompt (teacher forcing).

All prompts of a call begin alike (instruction, examples): the states of what they share are
computed once. Answers that differ only in their last token share a pass, and the head over the
vocabulary is applied at the positions that predict an answer's token and nowhere else.

Letters: N prompts, A answers, L tokens of the longest answer, R rows of a batch, S positions, D
width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from scdrugmap.errors import ResourceError
from scdrugmap.modelkit import free_memory, is_out_of_memory, plan_batches

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap_plugin_llama3.model import Llama

MIN_SHARED = 64
"""Fewest tokens at the start of all prompts that are worth a pass of their own: behind a cache,
attention needs a mask. Examples are worth it, the words of an instruction are not."""

_POSITIONS_AT_A_TIME = 256  # times a vocabulary of 128,256 in float32: 131 MB
_WORDS_AT_A_TIME = 16_384  # rows of the head that are brought to float32 together


def continuations(answers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what must follow a prompt so that every token of every answer is predicted.

    Of each answer all but its last token is read; what is the beginning of another is not needed.
    """
    heads = sorted({tuple(answer[:-1].tolist()) for answer in answers}, key=len, reverse=True)
    kept: list[tuple[int, ...]] = []
    for head in heads:
        if not any(longer[: len(head)] == head for longer in kept):
            kept.append(head)
    return [np.array(head, np.int64) for head in kept]


def answer_logprobs(
    network: Llama,
    head: Tensor,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    *,
    device: torch.device,
    token_budget: int,
    min_shared: int = MIN_SHARED,
    on_batch: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the log-probability of each token of each answer after each prompt.

    Runs in whatever arithmetic the caller set; logits and their logarithms are float32.

    Parameters
    ----------
    network : Llama
        On `device`, reading its last layer.
    head : (V, D) Tensor
        The head over the vocabulary, on `device`.
    prompts : sequence of (t,) int
        Token ids, at least one each.
    answers : sequence of (l,) int
        Token ids, at least one each.
    device : torch.device
    token_budget : int
        Most tokens of a batch; halved where memory does not suffice.
    min_shared : int
        Fewest tokens that are read once for all prompts.
    on_batch : callable, optional
        Told the prompts and tokens of each finished batch.

    Returns
    -------
    (N, A, L) float32
        NaN behind the last token of a shorter answer.

    Raises
    ------
    ResourceError
        A single prompt does not fit into memory.
    """
    longest = max(len(answer) for answer in answers)
    found = np.full((len(prompts), len(answers), longest), np.nan, np.float32)
    if not prompts:
        return found
    follow = continuations(answers)
    n_shared = _shared(prompts)
    shared = None
    if len(prompts) > 1 and n_shared >= min_shared:
        start = torch.from_numpy(prompts[0][None, :n_shared].astype(np.int64)).to(device)
        shared = network.read(start, keep_cache=True).past_key_values
    else:
        n_shared = 0
    cost = np.array([len(p) - n_shared + len(follow[0]) for p in prompts], np.int64) * len(follow)
    budget = token_budget
    pending = plan_batches(cost, budget)
    while pending:
        batch = pending.pop(0)
        rows = [prompts[cell][n_shared:] for cell in batch]
        try:
            found[batch] = _score(network, head, shared, rows, answers, follow, device)
            if on_batch is not None:
                on_batch(len(batch), int(cost[batch].sum()))
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
            free_memory(device)
            if len(batch) == 1:
                raise ResourceError(
                    f"llama3: one question with {int(cost[batch[0]]) + n_shared:,} tokens does not "
                    f"fit into the memory of {device}",
                    hint="use a device with more memory, load_in=bfloat16, or fewer genes and "
                    "examples",
                ) from err
            budget = max(1, int(cost[batch].max()) * len(batch) // 2)
            rest = np.sort(np.concatenate([batch, *pending]))
            pending = [rest[part] for part in plan_batches(cost[rest], budget)]
    return found


def _score(
    network: Llama,
    head: Tensor,
    shared: Any,
    rows: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    follow: Sequence[np.ndarray],
    device: torch.device,
) -> np.ndarray:
    """Score a batch: (B, A, L) float32."""
    width = max(len(row) for row in rows) + len(follow[0])
    ids = np.full((len(rows) * len(follow), width), network.pad, np.int64)  # (R, S), padded right
    for number, row in enumerate(rows):
        for place, tail in enumerate(follow):
            line = ids[number * len(follow) + place]
            line[: len(row)] = row
            line[len(row) : len(row) + len(tail)] = tail
    cache = None
    if shared is not None:
        cache = copy.deepcopy(shared)
        cache.batch_repeat_interleave(len(ids))
    hidden = network.read(torch.from_numpy(ids).to(device), cache=cache).last_hidden_state
    longest = max(len(answer) for answer in answers)
    found = np.full((len(rows), len(answers), longest), np.nan, np.float32)
    at, tokens, where = [], [], []
    for column, answer in enumerate(answers):
        start = answer[:-1].tolist()
        place = next(p for p, tail in enumerate(follow) if tail[: len(start)].tolist() == start)
        for number, row in enumerate(rows):
            for step, token in enumerate(answer.tolist()):
                at.append((number * len(follow) + place, len(row) - 1 + step))
                tokens.append(token)
                where.append((number, column, step))
    row_of, position = torch.tensor(at, device=device).T
    states = hidden[row_of, position]  # (M, D), one for each token of each answer
    wanted = torch.tensor(tokens, device=device)  # (M,)
    scores = [
        _logits(states[part], head).log_softmax(-1).gather(1, wanted[part, None])[:, 0]
        for part in torch.arange(len(tokens), device=device).split(_POSITIONS_AT_A_TIME)
    ]
    found[tuple(np.array(where).T)] = torch.cat(scores).cpu().numpy()
    return found


def _logits(states: Tensor, head: Tensor) -> Tensor:
    """(M, D) states to (M, V) float32: in bfloat16 a logit of 20 is known to 0.06 only."""
    with torch.autocast(states.device.type, enabled=False):
        parts = [F.linear(states.float(), rows.float()) for rows in head.split(_WORDS_AT_A_TIME)]
        return torch.cat(parts, dim=1)


def _shared(prompts: Sequence[np.ndarray]) -> int:
    """Return how many tokens all prompts begin with, leaving each at least one of its own."""
    n = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0][:n]
    for prompt in prompts[1:]:
        differ = np.flatnonzero(prompt[:n] != first[:n])
        n = min(n, int(differ[0])) if len(differ) else n
    return n
