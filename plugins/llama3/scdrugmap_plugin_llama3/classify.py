"""Answers by likelihood: which of two words the model would rather say after the question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.files import hash_json
from scdrugmap.modelkit import arithmetic, default_budget, resolve_device, resolve_precision, seeded
from scdrugmap.progress import Progress, say
from scdrugmap.text.contract import Answer
from scdrugmap_plugin_llama3.likelihood import answer_logprobs
from scdrugmap_plugin_llama3.prompts import examples_key
from scdrugmap_plugin_llama3.weights import HEAD

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.text.contract import Asking, Question
    from scdrugmap_plugin_llama3 import Options
    from scdrugmap_plugin_llama3.model import Llama
    from scdrugmap_plugin_llama3.prompts import Prompts

RANDOM_SOURCE = "random weights"
"""Source of a model without a checkpoint."""

_HEAD_SEED_STEP = 1  # the random head is another draw than the body


@dataclass
class Classifier:
    """Answers questions with a network and its head.

    Parameters
    ----------
    network : Llama
    prompts : Prompts
    options : Options
    source : str
        Folder of the checkpoint, for messages and as the name of what answered.
    seed : int
        Of the head, where weights are random.
    """

    network: Llama
    prompts: Prompts
    options: Options
    source: str
    seed: int

    @property
    def n_genes(self) -> int:
        """Most genes of a question."""
        template = self.prompts.template
        # A gene has a token or more.
        return self.options.question_top_k or template.top_k or self.prompts.max_tokens

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        """See :meth:`scdrugmap_plugin_llama3.model.LlamaCells.classify`."""
        asked = [place for place, question in enumerate(questions) if question.genes]
        answers = [Answer("invalid", reason="no_known_genes")] * len(questions)
        if not asked:
            return answers
        device = resolve_device(asking.device)
        budget = asking.token_budget or default_budget(device)
        precision, notice = resolve_precision(asking.precision, device)
        if notice:
            say(f"Notice: {notice}", quiet=asking.quiet)
        chosen = [questions[place] for place in asked]
        probability, mass = np.zeros(len(asked)), np.zeros(len(asked))
        keys: list[list[str]] = [[] for _ in asked]
        orders = self._orders()
        network: nn.Module = self.network
        training = network.training
        network.to(device).eval()
        try:
            head = self._head().to(device)
            with arithmetic(device, precision):
                for prompts in orders:
                    prompts.check_seam(chosen[0])
                    cells, null, hashes = self._scores(
                        prompts, chosen, head, device, budget, quiet=asking.quiet
                    )
                    probability += p_sensitive((cells - null) / self._divisors(prompts))
                    mass += np.exp(cells).sum(1)
                    for known, key in zip(keys, hashes, strict=True):
                        known.append(key)
        finally:
            network.train(training)
        for place, p, share, of_orders in zip(asked, probability, mass, keys, strict=True):
            answers[place] = Answer(
                "answered",
                p_sensitive=float(p / len(orders)),
                answer_mass=float(share / len(orders)),
                prompt_hash=self._hash(of_orders, precision),
                served_by=f"llama3 ({Path(self.source).name})",
            )
        return answers

    def _orders(self) -> list[Prompts]:
        given = self.prompts
        chosen = self.options.orders
        if chosen == "auto":
            chosen = "both" if given.template.kind == "chat" else "given"
        if chosen == "both":
            return [given, given.swapped()]
        return [given if chosen == "given" else given.swapped()]

    def _scores(
        self,
        prompts: Prompts,
        questions: Sequence[Question],
        head: Tensor,
        device: torch.device,
        budget: int,
        *,
        quiet: bool,
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return S of each question and of the same without genes, (n, 2) float64, and hashes."""
        asked = [prompts.ids(question) for question in questions]
        null = []
        if self.options.calibrate:
            null = [prompts.ids(question, null=True) for question in questions]
        # Questions with the same examples begin alike and go together; equal prompts go once.
        together: dict[str, dict[bytes, np.ndarray]] = {}
        for question, *ids in zip(questions, asked, *([null] if null else []), strict=True):
            part = together.setdefault(examples_key(question), {})
            part.update((one.tobytes(), one) for one in ids)
        scores: dict[bytes, np.ndarray] = {}
        n_prompts = sum(map(len, together.values()))
        with Progress("ask llama3", n_prompts, "prompts", quiet=quiet) as progress:
            for part in together.values():
                found = answer_logprobs(
                    self.network,
                    head,
                    list(part.values()),
                    prompts.answers,
                    device=device,
                    token_budget=budget,
                    on_batch=lambda n, tokens: progress.advance(n, tokens=tokens),
                )
                sums = np.nansum(found.astype(np.float64), axis=2)  # (n_distinct, 2)
                scores.update(zip(part, sums, strict=True))
        of_asked = np.stack([scores[ids.tobytes()] for ids in asked])
        of_null = np.stack([scores[ids.tobytes()] for ids in null]) if null else of_asked * 0
        return of_asked, of_null, [hashlib.sha256(ids.tobytes()).hexdigest() for ids in asked]

    def _divisors(self, prompts: Prompts) -> np.ndarray:
        if not self.options.per_token:
            return np.ones(len(prompts.answers))
        return np.array([len(answer) for answer in prompts.answers], np.float64)

    def _head(self) -> Tensor:
        """Return the head over the vocabulary ((V, D))."""
        network = self.network
        if network.is_cut:
            raise UsageError(
                f"llama3: answers are read from the last layer, not from layer={self.options.layer}",
                hint="leave layer out",
            )
        words = network.embed_tokens.weight
        if network.config.tie_word_embeddings:
            return words.detach()
        if network.answer_head is None:
            if self.source != RANDOM_SOURCE:
                raise WeightsError(
                    f"{self.source}: {HEAD} is missing: the checkpoint embeds but cannot answer",
                    hint="fetch the whole checkpoint",
                )
            with seeded(self.seed + _HEAD_SEED_STEP):
                spread = float(network.config.initializer_range)
                network.answer_head = torch.empty(words.shape).normal_(0.0, spread)
        return network.answer_head.to(words.dtype)

    def _hash(self, prompts: Sequence[str], precision: str) -> str:
        depends: dict[str, Any] = {
            "model": "llama3",
            "checkpoint": Path(self.source).name,
            "options": self.options.model_dump(mode="json"),
            "prompts": list(prompts),
            "precision": precision,
        }
        return hash_json(depends)


def p_sensitive(scores: np.ndarray) -> np.ndarray:
    """Return the probability of the first of two answers.

    Parameters
    ----------
    scores : (n, 2) float64
        Of ``sensitive`` and ``resistant``, as logarithms.

    Returns
    -------
    (n,) float64
    """
    return 0.5 * (1.0 + np.tanh(0.5 * (scores[:, 0] - scores[:, 1])))
