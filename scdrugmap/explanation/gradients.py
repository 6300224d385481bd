"""Integrated gradients: how much each gene of a cell adds to its log-odds of sensitive.

Sundararajan, Taly and Yan (Axiomatic Attribution for Deep Networks, ICML 2017) integrate the
gradient along the straight line from a baseline to the input. The attributions of a cell then add
up to the difference between its answer and that of the baseline (completeness), which is measured
here for every cell.

Genes are tokens, and a token has no gradient; its vector has. So the line is drawn in the output of
the submodule that a model names as ``input_module``. The baseline is the zero vector in place of
each gene, as the authors take it for text (their section on question classification: training
gives unimportant words small norms, so in the limit a word without importance is the zero vector);
padding, the other usual choice (Kokhlikyan et al., Captum, 2020), is the zero vector too in models
whose table of genes has a padding row. Special tokens such as ``<cls>`` stay as they are on the
whole line, so that nothing is attributed to them. Where a network normalises the vector of a token
before it uses it, all of the change lies close to the zero vector, which a few points may miss; the
error of completeness shows it. For those there is the mean vector of the cell's own genes as
baseline: an average over data is a remedy that Sturmfels, Lundberg and Lee (Visualizing the Impact of
Feature Attribution Baselines, Distill 2020) discuss.

B cells of a batch, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdrugmap.errors import PluginError, ResourceError, UsageError
from scdrugmap.explanation.attributed import LOG_ODDS, Attributed
from scdrugmap.explanation.layout import token_places, value_places
from scdrugmap.model.batching import default_budget, plan_batches
from scdrugmap.model.device import exact_float32, free_memory, is_out_of_memory, resolve_device
from scdrugmap.model.load import bind
from scdrugmap.model.parts import group_indices
from scdrugmap.train.heads import LogisticHead, PerceptronHead
from scdrugmap.train.trainee import LinearHead

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

    from scdrugmap.data.genes import Genes
    from scdrugmap.explanation.settings import Baseline
    from scdrugmap.modelkit.tokens import Tokens
    from scdrugmap.train.frozen import FrozenScorer
    from scdrugmap.train.heads import Head

WINDOW_CELLS = 256
"""Cells that are tokenised together."""

_LEAST_DIFFERENCE = 1e-3
"""Differences of log-odds below this count as this: relative errors of nothing say nothing."""


class Gradients:
    """Integrated gradients through a network and its head; frozen or fine-tuned.

    Parameters
    ----------
    scorer : FrozenScorer
    genes : Genes
        Columns of the cells.
    steps : int
        Points of the Gauss-Legendre quadrature.
    baseline : {"zero", "mean"}
    where : str
        The file, for messages.

    Raises
    ------
    DataError
        The model knows too few genes.
    """

    name, unit = "gradients", LOG_ODDS
    coefficients: np.ndarray | None = None

    def __init__(
        self,
        scorer: FrozenScorer,
        genes: Genes,
        *,
        steps: int = 50,
        baseline: Baseline = "zero",
        where: str = "the file",
    ) -> None:
        embedder = scorer.embedder
        self.model, self.model_name = embedder.loaded.model, embedder.loaded.name
        self.grouped = embedder.loaded.spec.cell_batching == "group"
        self.steps, self.baseline, self.n_genes = steps, baseline, len(genes)
        self.device = resolve_device(embedder.device)
        self.budget = embedder.token_budget or default_budget(self.device)
        bind(embedder.loaded, genes, min_genes=embedder.min_genes, where=where)
        self.module = self.model.module.to(self.device)
        self.head = torch_head(scorer.head).to(self.device).eval()

    def attribute(
        self, rows: csr_matrix, names: np.ndarray, groups: np.ndarray
    ) -> Iterator[Attributed]:
        """Explain cells; see :class:`~scdrugmap.explanation.attributed.Method`.

        Raises
        ------
        PluginError
            The input module cannot be read.
        ResourceError
            A single cell, or a group, does not fit into memory.
        """
        if self.grouped:
            for members in group_indices(groups, len(names)):
                tokens = self.model.tokenizer.encode(rows[members], names[members])
                try:
                    found = self._explained(tokens, np.arange(len(members)), members)
                except (RuntimeError, MemoryError) as err:
                    if is_out_of_memory(err):
                        raise self._too_large(tokens) from err
                    raise
                yield found
            return
        for start in range(0, len(names), WINDOW_CELLS):
            window = np.arange(start, min(start + WINDOW_CELLS, len(names)))
            tokens = self.model.tokenizer.encode(rows[window], names[window])
            usable = np.flatnonzero(tokens.usable)
            unusable = np.flatnonzero(~tokens.usable)
            if len(unusable):
                yield self._nothing(window[unusable])
            cost = np.asarray(self.model.cost(tokens), np.int64)[usable]
            pending = [usable[batch] for batch in plan_batches(cost, self.budget)]
            while pending:
                batch = pending.pop(0)
                try:
                    found = self._explained(tokens, batch, window[batch])
                except (RuntimeError, MemoryError) as err:
                    if not is_out_of_memory(err) or len(batch) == 1:
                        if is_out_of_memory(err):
                            raise self._too_large(tokens.take(batch)) from err
                        raise
                    free_memory(self.device)
                    pending[:0] = np.array_split(batch, 2)
                    self.budget = max(1, self.budget // 2)
                    continue
                yield found

    def _too_large(self, tokens: Tokens) -> ResourceError:
        return ResourceError(
            f"{self.model_name}: the gradient of {tokens.n_cells:,} cells with "
            f"{int(tokens.start[-1]):,} tokens does not fit into the memory of {self.device}",
            hint="use a device with more memory, fewer --max-cells for models whose cells see each "
            "other, or --method permutation",
        )

    def _nothing(self, cells: np.ndarray) -> Attributed:
        from scipy.sparse import csr_matrix

        nan = np.full(len(cells), np.nan)
        return Attributed(cells, csr_matrix((len(cells), self.n_genes)), nan, nan)

    def _explained(self, tokens: Tokens, batch: np.ndarray, cells: np.ndarray) -> Attributed:
        """Explain one batch."""
        from scipy.sparse import csr_matrix

        part = tokens.take(batch)
        with exact_float32(), _at_rest(self.module):
            attribution, before, after = self._integrate(part)
        columns = part.flat["column"]
        genes = columns >= 0
        start = np.concatenate([[0], np.cumsum(genes)])[part.start]
        # Tokens of one gene, as of a text or of repeated draws, are added up.
        values = csr_matrix(
            (attribution[genes], columns[genes].astype(np.int64), start),
            (part.n_cells, self.n_genes),
        )
        values.sum_duplicates()
        found = np.asarray(values.sum(1)).ravel()
        wanted = after - before
        if self.grouped:  # what a cell's genes do to the other cells of its group is counted too
            found, wanted = (np.full(len(batch), total.sum()) for total in (found, wanted))
        error = np.abs(found - wanted) / np.maximum(np.abs(wanted), _LEAST_DIFFERENCE)
        p = 1 / (1 + np.exp(-after))
        usable = part.usable
        return Attributed(
            cells, values, np.where(usable, p, np.nan), np.where(usable, error, np.nan)
        )

    def _integrate(self, tokens: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return attributions ((n_tokens,)), log-odds of the baseline and of the cells ((B,))."""
        from captum.attr import IntegratedGradients

        collated = self.model.collate(tokens)
        batch = {name: tensor.to(self.device) for name, tensor in collated.items()}
        with _Probe(self.module, self.model.input_module, self.model_name) as probe:
            with torch.no_grad():
                after = self._log_odds(batch)
                output = probe.take()
                places = token_places(tokens, collated, tuple(output.shape), self.model_name)
                start = self._start(output, tokens, places)
                probe.put = start
                before = self._log_odds(batch)

            def answers(lines: Tensor) -> Tensor:
                """Sum of the log-odds of all cells, for each point: (points, ...) to (points,)."""
                sums = []
                for point in lines:
                    probe.put = point
                    sums.append(self._log_odds(batch).sum())
                return torch.stack(sums)

            # The batch is one example to captum: it would repeat the rows of a batch for each
            # point, and packed batches and groups have none.
            slope = IntegratedGradients(answers, multiply_by_inputs=False).attribute(
                output[None],
                baselines=start[None],
                n_steps=self.steps,
                method="gausslegendre",
                internal_batch_size=1,
            )[0]
            probe.put = None
            if places is None:
                attribution = self._divide(slope, tokens, batch, collated, probe)
            else:
                lead = 1 if output.ndim < 3 else 2
                product = (slope * (output - start)).flatten(0, lead - 1).double()
                attribution = product.flatten(1).sum(1) if product.ndim > 1 else product
                attribution = attribution.cpu().numpy()[places]
        return attribution, before.double().cpu().numpy(), after.double().cpu().numpy()

    def _log_odds(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the (B,) log-odds of sensitive."""
        answer = self.head(self.module(batch).float())
        return answer if answer.ndim == 1 else answer[:, 1] - answer[:, 0]

    def _start(self, output: Tensor, tokens: Tokens, places: np.ndarray | None) -> Tensor:
        """Return the baseline: the output without any gene, special tokens and padding as they are."""
        if places is None:
            if self.baseline == "mean":
                raise UsageError(
                    f"{self.model_name} has one vector per cell, so no mean over its genes",
                    hint="use --baseline zero",
                )
            return torch.zeros_like(output)
        is_gene = tokens.flat["column"] >= 0
        of_gene = torch.from_numpy(places[is_gene]).to(self.device)
        lead = 1 if output.ndim < 3 else 2
        start = output.clone().flatten(0, lead - 1)
        if self.baseline == "zero":
            start[of_gene] = 0
            return start.view_as(output)
        cell = np.repeat(np.arange(tokens.n_cells), tokens.lengths)[is_gene]
        of_cell = torch.from_numpy(cell).to(self.device)
        sums = start.new_zeros((tokens.n_cells, *start.shape[1:]))
        sums.index_add_(0, of_cell, start[of_gene])
        counts = torch.bincount(of_cell, minlength=tokens.n_cells).clamp(min=1)
        mean = sums / counts.view(-1, *[1] * (start.ndim - 1))
        start[of_gene] = mean[of_cell]
        return start.view_as(output)

    def _divide(
        self,
        slope: Tensor,
        tokens: Tokens,
        batch: dict[str, Tensor],
        collated: dict[str, Tensor],
        probe: _Probe,
    ) -> np.ndarray:
        """Divide the attribution of a cell's vector among its genes ((n_tokens,) float64).

        Each gets its value times the derivative of the vector by it, which is exact where the
        vector is a weighted sum of genes.
        """
        places = value_places(self.model, tokens, collated)
        leaves = {name: batch[name].detach().clone().requires_grad_() for name in places}
        if not leaves:
            raise PluginError(
                f"{self.model_name} adds the genes of a cell up, and its batch has no value per gene",
                hint="use --method permutation",
            )
        with torch.enable_grad():
            self.module({**batch, **leaves})
            total = (probe.take(attached=True) * slope).sum()
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        attribution = np.zeros(int(tokens.start[-1]))
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            if gradient is not None:
                attribution[places[name]] = (leaf * gradient).detach().double().cpu().numpy()
        return attribution


class _Probe:
    """Reads what a submodule gives, or puts something else in its place."""

    def __init__(self, module: nn.Module, part: str, name: str) -> None:
        self.part, self.name = part, name
        self.put: Tensor | None = None
        self._seen: list[Any] = []
        self._module = module.get_submodule(part)

    def __enter__(self) -> _Probe:
        self._handle = self._module.register_forward_hook(self._meet)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _meet(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if self.put is not None:
            return self.put
        self._seen.append(output)
        return None

    def take(self, *, attached: bool = False) -> Tensor:
        """Return the output of the last forward pass, and forget it.

        Raises
        ------
        PluginError
            The submodule was not called once, or gives no tensor of numbers.
        """
        seen, self._seen = self._seen, []
        if len(seen) != 1:
            raise PluginError(
                f"{self.name}: its input module {self.part!r} was called {len(seen)} times in one "
                "pass, expected once"
            )
        output = seen[0]
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            raise PluginError(f"{self.name}: its input module {self.part!r} gives no numbers")
        return output if attached else output.detach()


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Let a network be in ``eval()`` and without gradients of its own inside the block."""
    training = [(part, part.training) for part in module.modules()]
    learning = [(p, p.requires_grad) for p in module.parameters()]
    module.eval()
    for parameter, _ in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode
        for parameter, learns in learning:
            parameter.requires_grad_(learns)


def torch_head(head: Head) -> nn.Module:
    """Return a head as a layer: (B, D) embeddings to (B,) log-odds or (B, 2) logits.

    Raises
    ------
    PluginError
        A head that cannot be differentiated.
    """
    if isinstance(head, LogisticHead):
        return LinearHead(head)
    if isinstance(head, PerceptronHead):
        return head.network
    raise PluginError(f"a head of type {type(head).__name__} has no gradient")
