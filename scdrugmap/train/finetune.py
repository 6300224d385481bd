"""The training loop of fine-tuning: steps, evaluations, the best state, and when to stop.

A step has a fixed number of cells; they go through the network in batches that fit the memory,
each with its own seed for dropout, and gradients are summed over batches and processes. So
neither memory, nor the number of processes, nor an interruption changes what is learnt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdrugmap.errors import PluginError, ResourceError
from scdrugmap.model.batching import EXACT_ABOVE, Network, default_budget
from scdrugmap.model.device import (
    exact_float32,
    free_memory,
    is_out_of_memory,
    resolve_precision,
)
from scdrugmap.model.prefetch import Prefetched
from scdrugmap.progress import Progress, say
from scdrugmap.train.course import Course
from scdrugmap.train.optimizer import LEARNING_RATES, make_optimizer, rate_share
from scdrugmap.train.steps import GROUPED_STEP_CELLS, STEP_CELLS, Plan, cell_weights, n_cells_of
from scdrugmap.train.trainee import Trainee, cell_losses

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.train.checkpoint import Checkpoint
    from scdrugmap.train.labelled import LabelledTokens
    from scdrugmap.train.processes import Processes
    from scdrugmap.train.settings import FineTuning


class Tuner:
    """Fine-tunes a network.

    Parameters
    ----------
    trainee : Trainee
        Gets its head here.
    training : LabelledTokens
    validation : LabelledTokens or None
        Cells that tell when to stop; None: the last state is the result.
    settings : FineTuning
    strategy : {"lora", "full"}
    head : {"logistic", "mlp"}
    start : (m,) int64
        Training cells that the head begins with.
    seed : int
        Of the order of cells and of dropout.
    processes : Processes
    precision : str
    token_budget : int, optional
        Most tokens of a batch.
    checkpoint : Checkpoint, optional
        Where the state is kept; None: nowhere.
    quiet : bool

    Attributes
    ----------
    course : Course
    n_steps : int
        Steps of the whole training.
    steps_per_epoch : int
    """

    def __init__(
        self,
        trainee: Trainee,
        training: LabelledTokens,
        validation: LabelledTokens | None,
        settings: FineTuning,
        *,
        strategy: str,
        head: str,
        start: np.ndarray,
        seed: int,
        processes: Processes,
        precision: str = "float32",
        token_budget: int | None = None,
        checkpoint: Checkpoint | None = None,
        quiet: bool = False,
    ) -> None:
        self.trainee, self.training, self.validation = trainee, training, validation
        self.settings, self.seed, self.processes = settings, seed, processes
        self.checkpoint, self.quiet = checkpoint, quiet
        self.device = processes.device
        self.precision, _ = resolve_precision(precision, self.device)
        grouped = training.sequences is not None
        usual = GROUPED_STEP_CELLS if grouped else STEP_CELLS
        cells = settings.batch_size or usual
        self.plan = Plan(training.tokens.cost, training.sequences, cells, seed)
        self.steps_per_epoch = self.plan.n_steps
        self.n_steps = settings.epochs * self.steps_per_epoch
        if settings.max_steps is not None:
            self.n_steps = min(self.n_steps, settings.max_steps)
        self.course = Course(budget=token_budget or default_budget(self.device))
        self._weight = cell_weights(training.y, balanced=settings.class_weights)
        self._best: dict[str, Tensor] = {}
        trainee.module.to(self.device)
        if head != "logistic":
            start = start[:0]  # only their width matters
        trainee.start_head(head, self._noisy_embeddings(start), training.y[start])
        trainee.head.to(self.device)
        self._parameters = list(trainee.trainable().values())
        rate = settings.learning_rate or LEARNING_RATES[strategy]
        self._rates = {"network": rate, "head": settings.head_learning_rate}
        self._optimizer = make_optimizer(
            trainee.trainable(), self._rates, weight_decay=settings.weight_decay
        )

    def run(self) -> Course:
        """Train; the network then has the state with the least validation loss, or the last."""
        every = self.settings.evaluate_every or self.steps_per_epoch
        self._begin()
        course, total = self.course, self.n_steps
        skipped = sum(map(n_cells_of, islice(self._steps(), course.step)))
        n_cells = sum(map(n_cells_of, islice(self._steps(), total)))
        with exact_float32(), Progress("train", n_cells, quiet=self.quiet) as progress:
            progress.skip(skipped)
            while not self._is_over():
                for cells, tokens in self._train_on():
                    progress.advance(cells, tokens=tokens)
                    if course.step % every == 0 or course.step == total:
                        self._evaluate()
                    if self.checkpoint is not None:
                        evaluated = not course.losses
                        self.checkpoint.keep(self.snapshot, force=evaluated)
                    if self._is_over():
                        break
        if self.validation is not None:
            self.trainee.restore(self._best)
        self.trainee.module.eval()
        self.trainee.head.eval()
        return course

    def _is_over(self) -> bool:
        return self.course.stopped or self.course.step >= self.n_steps

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the next step depends on: tensors, and a JSON-able rest."""
        tensors = {f"now.{name}": tensor for name, tensor in self.trainee.state().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value.cpu() for name, value in state.items()}
        return tensors, vars(self.course).copy()

    def restore(self, tensors: dict[str, Tensor], course: dict[str, Any]) -> None:
        """Become what :meth:`snapshot` was taken of."""
        self.course = Course(**course)
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.trainee.restore(parts["now"])
        self._best = parts["best"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["adam"].items():
            number, _, rest = name.partition(".")
            state.setdefault(int(number), {})[rest] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _begin(self) -> None:
        found = None if self.checkpoint is None else self.checkpoint.load()
        if found is not None:
            self.restore(*found)
            say(
                f"going on after step {self.course.step:,} of {self.n_steps:,}",
                quiet=self.quiet,
            )
        buffers = [buffer for _, buffer in self.trainee.head.named_buffers()]
        self.processes.same([*self._parameters, *buffers])

    def _steps(self) -> Iterator[list[np.ndarray]]:
        """Give the steps of all epochs, without end."""
        epoch = 0
        while True:
            yield from self.plan.epoch(epoch)
            epoch += 1

    def _prepare(self, first: int, budget: int) -> Iterator[_Step]:
        """Give the steps from `first` on, with the batches of this process; runs in a thread."""
        for number, step in enumerate(islice(self._steps(), self.n_steps)):
            if number < first:
                continue
            batches = self._batches(step, budget, self.processes.count)
            weight = float(sum(self._weight[batch].sum() for batch in batches))
            n_tokens = sum(int(self.training.tokens.cost[batch].sum()) for batch in batches)
            mine = [
                (n, batch, self.trainee.model.collate(self.training.tokens.take(batch)))
                for n, batch in enumerate(batches)
                if self.processes.mine(n)
            ]
            yield _Step(number, mine, weight, n_cells_of(step), n_tokens)

    def _batches(self, step: list[np.ndarray], budget: int, at_least: int = 1) -> list[np.ndarray]:
        exact = EXACT_ABOVE if self.device.type == "cpu" else None
        return self.plan.batches(step, budget, exact_above=exact, at_least=at_least)

    def _train_on(self) -> Iterator[tuple[int, int]]:
        """Do steps until all are done or the memory did not suffice; give cells and tokens of each."""
        course = self.course
        began = time.perf_counter()
        with Prefetched(lambda stopped: self._prepare(course.step, course.budget)) as steps:
            for step in steps:
                loss = self._try(step)
                if loss is None:
                    return
                course.losses.append(loss)
                course.step += 1
                course.seconds += time.perf_counter() - began
                course.cells += step.n_cells
                course.tokens += step.n_tokens
                yield step.n_cells, step.n_tokens
                began = time.perf_counter()

    def _try(self, step: _Step) -> float | None:
        """Do a step; None if the memory did not suffice and smaller batches should be tried."""
        try:
            return self._do(step)
        except (RuntimeError, MemoryError) as err:
            self._optimizer.zero_grad(set_to_none=True)
            self._give_way(err, [batch for _, batch, _ in step.batches])
        return None

    def _give_way(self, err: Exception, batches: list[np.ndarray]) -> None:
        """Halve the budget, or raise where a batch cannot be divided or `err` is another error."""
        if not is_out_of_memory(err):
            raise err
        free_memory(self.device)
        cost = self.training.tokens.cost
        tokens = max(len(batch) * int(cost[batch].max()) for batch in batches)
        largest = max(len(batch) for batch in batches)
        if self.processes.count > 1 or self.plan.groups is not None or largest == 1:
            raise ResourceError(
                f"{self.trainee.name}: a batch of {largest:,} cells does not fit into the memory "
                f"of {self.device}",
                hint="use --gradient-checkpointing, a smaller --token-budget (--batch-size for "
                "models whose cells see each other), or a shorter length (--set)",
            ) from err
        self.course.budget = max(1, tokens // 2)
        say(
            f"Notice: {tokens:,} tokens in a batch are too many for the memory of {self.device}; "
            f"going on with {self.course.budget:,}",
            quiet=self.quiet,
        )

    def _do(self, step: _Step) -> float:
        self.trainee.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(step, *batch) for batch in step.batches]
        self.processes.sum_gradients(self._parameters)
        total = float(sum(float(loss) for loss in losses))
        loss = float(self.processes.sum_values(np.array([total]))[0])
        if not math.isfinite(loss):
            raise PluginError(
                f"{self.trainee.name}: the loss of step {step.number + 1} is {loss}",
                hint="use a lower --learning-rate, or --precision float32",
            )
        if step.number == 0:
            self.trainee.check_gradients()
        if self.settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        share = rate_share(step.number, self.n_steps, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = share * group["highest"]
        self._optimizer.step()
        return loss

    def _backward(
        self, step: _Step, number: int, batch: np.ndarray, inputs: dict[str, Tensor]
    ) -> Tensor:
        y = torch.from_numpy(self.training.y[batch]).float().to(self.device)
        weight = torch.from_numpy(self._weight[batch]).float().to(self.device)
        with _dropout_seed((self.seed, step.number, number), self.device):
            losses = cell_losses(self.trainee.head(self._forward(inputs)), y)
            loss = (losses * weight).sum() / step.weight
            loss.backward()
        return loss.detach()

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        on_device = {name: value.to(self.device) for name, value in inputs.items()}
        enabled = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            embedding: Tensor = self.trainee.module(on_device)
        return embedding.float()

    def _noisy_embeddings(self, cells: np.ndarray) -> np.ndarray:
        """Embed cells as training does, with dropout: a head that begins with them withstands it."""
        while True:
            batches = self.training.blocks(cells)
            if self.training.sequences is None:
                batches = [b for one in batches for b in self._batches([one], self.course.budget)]
            try:
                return self._embed_noisily(cells, batches)
            except (RuntimeError, MemoryError) as err:
                self._give_way(err, batches)

    def _embed_noisily(self, cells: np.ndarray, batches: list[np.ndarray]) -> np.ndarray:
        found = np.zeros((len(cells), self.trainee.model.traits.dim), np.float32)
        self.trainee.train()
        progress = Progress("start the head", len(cells), quiet=self.quiet)
        with torch.no_grad(), exact_float32(), progress:
            for number, batch in enumerate(batches):
                inputs = self.trainee.model.collate(self.training.tokens.take(batch))
                with _dropout_seed((self.seed, number), self.device):
                    values = self._forward(inputs).cpu().numpy()
                found[np.searchsorted(cells, batch)] = values
                n_tokens = int(self.training.tokens.cost[batch].sum())
                progress.advance(len(batch), tokens=n_tokens)
        return found

    def _evaluate(self) -> None:
        """Write the history, and remember the state if it is the best so far."""
        course = self.course
        self.trainee.require_finite()
        found = None if self.validation is None else self._validation_loss(self.validation)
        course.history.append(
            {
                "step": course.step,
                "epoch": round(course.step / self.steps_per_epoch, 3),
                "loss": float(np.mean(course.losses)),
                "validation_loss": found,
                "learning_rate": self._rates["network"]
                * rate_share(course.step - 1, self.n_steps, self.settings),
            }
        )
        course.losses = []
        text = "" if found is None else f", validation loss {found:.4f}"
        say(
            f"step {course.step:,} of {self.n_steps:,}: loss {course.history[-1]['loss']:.4f}{text}",
            quiet=self.quiet,
        )
        if found is None:
            course.best_step = course.step
            return
        if course.best_loss is None or found < course.best_loss:
            course.best_loss, course.best_step, course.stale = found, course.step, 0
            self._best = self.trainee.state()
            return
        course.stale += 1
        if self.settings.patience and course.stale >= self.settings.patience:
            course.stopped = course.step < self.n_steps

    def _validation_loss(self, data: LabelledTokens) -> float:
        """Return the mean loss in ``eval()``, every group counting the same."""
        network = self._network()
        losses = np.zeros(len(data.y))
        for number, block in enumerate(data.blocks(np.arange(len(data.y)))):
            if not self.processes.mine(number):
                continue
            values = torch.from_numpy(data.embed_block(network, block)).to(self.device)
            self.trainee.head.eval()
            with torch.no_grad():
                y = torch.from_numpy(data.y[block]).float().to(self.device)
                losses[block] = cell_losses(self.trainee.head(values), y).cpu().numpy()
        losses = self.processes.sum_values(losses)
        _, code = np.unique(data.groups.astype(str), return_inverse=True)
        return float(np.mean(np.bincount(code, losses) / np.bincount(code)))

    def _network(self) -> Network:
        return Network(
            self.trainee.model,
            device=self.device,
            precision=self.precision,
            token_budget=self.course.budget,
            name=self.trainee.name,
        )


@dataclass(frozen=True)
class _Step:
    """One step: number, (number, cells, inputs) of this process's batches, and the sums of all."""

    number: int
    batches: list[tuple[int, np.ndarray, dict[str, Any]]]
    weight: float
    n_cells: int
    n_tokens: int


@contextmanager
def _dropout_seed(key: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Seed dropout inside the block, and leave the global generators as they were."""
    words = np.random.SeedSequence([part & 0xFFFFFFFF for part in key]).generate_state(2)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        yield
