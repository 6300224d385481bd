"""Classifiers on top of embeddings: logistic regression, and the paper's network.

B cells of a batch, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import nn

from scdrugmap.baselines.logistic import fit_logistic, sigmoid
from scdrugmap.errors import DataError
from scdrugmap.modelkit.keys import load_strict, seeded

if TYPE_CHECKING:
    from torch import Tensor

HeadName = Literal["logistic", "mlp"]

_C = 0.1
_HIDDEN = 512
_LEARNING_RATE = 1e-4
_WEIGHT_DECAY = 0.01
_EPOCHS = 10
_BATCH = 128
_BLOCK = 4_096


class Head(Protocol):
    """Turns embeddings into probabilities of sensitive."""

    notices: tuple[str, ...]

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        """Learn from (n, D) float32 embeddings and (n,) float labels, 1 = sensitive."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) float32 probabilities for (n, D) float32 embeddings, in blocks."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what was learnt."""

    def restore(self, tensors: Mapping[str, np.ndarray], where: str) -> None:
        """Become the head that :meth:`tensors` was taken from.

        Raises
        ------
        DataError
            Names or shapes are not those of this head.
        """


class LogisticHead:
    """Logistic regression on standardised embeddings."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.notices: tuple[str, ...] = ()
        self.mean = np.zeros(dim, np.float32)
        self.scale = np.ones(dim, np.float32)
        self.weight = np.zeros(dim, np.float32)
        self.bias = np.zeros(1, np.float32)

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        """Learn; the result does not depend on the seed."""
        self.mean = x.mean(0, dtype=np.float64).astype(np.float32)
        spread = x.std(0, dtype=np.float64).astype(np.float32)
        self.scale = np.where(spread > 0, spread, 1).astype(np.float32)
        weight, bias, converged = fit_logistic((x - self.mean) / self.scale, y.astype(np.int64), _C)
        self.weight, self.bias = weight, np.array([bias], np.float32)
        self.notices = () if converged else ("the logistic regression did not converge",)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) float32 probabilities for (n, D) embeddings."""
        blocks = [np.zeros(0, np.float32)]
        for start in range(0, len(x), _BLOCK):
            block = (np.asarray(x[start : start + _BLOCK]) - self.mean) / self.scale
            blocks.append(sigmoid(block @ self.weight + self.bias[0]).astype(np.float32))
        return np.concatenate(blocks)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return mean, scale and weight ((D,)) and bias ((1,)), float32."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "weight": self.weight,
            "bias": self.bias,
        }

    def restore(self, tensors: Mapping[str, np.ndarray], where: str) -> None:
        """Become the head that the tensors were taken from."""
        expected = {name: values.shape for name, values in self.tensors().items()}
        shapes = {name: values.shape for name, values in tensors.items()}
        if shapes != expected:
            raise DataError(f"{where} holds {shapes}, expected {expected}")
        for name, values in tensors.items():
            setattr(self, name, values.astype(np.float32))


class Perceptron(nn.Module):
    """The head of the paper's frozen mode: D-512-512-2, no dropout, no normalisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden_1 = nn.Linear(dim, _HIDDEN)
        self.hidden_2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2) logits (resistant, sensitive) for (B, D) embeddings."""
        x = torch.relu(self.hidden_1(x))  # (B, 512)
        x = torch.relu(self.hidden_2(x))  # (B, 512)
        return self.out(x)  # (B, 2)


class PerceptronHead:
    """The paper's head and its training: AdamW, 10 epochs of batches of 128.

    The loss is binary cross-entropy of each logit against the one-hot label. The paper calls the
    larger logit; so does a probability of the softmax above 0.5.
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.notices: tuple[str, ...] = ()
        self.device = device or torch.device("cpu")
        with seeded(0):  # only the shapes matter until `fit` or `restore`
            self.network = Perceptron(dim)
        self.dim = dim

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        """Learn; the seed draws the first weights and the order of the cells."""
        with seeded(seed):
            network = Perceptron(self.dim)
        network = network.to(self.device).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )
        loss = nn.BCEWithLogitsLoss()
        target = np.column_stack([1.0 - y, y]).astype(np.float32)
        random = np.random.default_rng(seed)
        with one_thread():
            for _ in range(_EPOCHS):
                order = random.permutation(len(x))
                for start in range(0, len(x), _BATCH):
                    batch = order[start : start + _BATCH]
                    inputs = torch.from_numpy(np.array(x[batch], np.float32)).to(self.device)
                    wanted = torch.from_numpy(target[batch]).to(self.device)
                    optimizer.zero_grad(set_to_none=True)
                    loss(network(inputs), wanted).backward()
                    optimizer.step()
        self.network = network.cpu().eval()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) float32 probabilities for (n, D) embeddings."""
        network = self.network.to(self.device).eval()
        blocks = [np.zeros(0, np.float32)]
        with torch.inference_mode():
            for start in range(0, len(x), _BLOCK):
                block = np.array(x[start : start + _BLOCK], np.float32)
                logits = network(torch.from_numpy(block).to(self.device))  # (B, 2)
                blocks.append(torch.softmax(logits, 1)[:, 1].cpu().numpy())
        return np.concatenate(blocks)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return weights and biases of the three layers, float32."""
        return {
            name: tensor.detach().cpu().numpy()
            for name, tensor in self.network.state_dict().items()
        }

    def restore(self, tensors: Mapping[str, np.ndarray], where: str) -> None:
        """Become the head that the tensors were taken from."""
        from scdrugmap.errors import WeightsError

        try:
            load_strict(
                self.network,
                {name: torch.from_numpy(values.copy()) for name, values in tensors.items()},
                where,
            )
        except (WeightsError, TypeError) as err:
            raise DataError(str(err), hint="train the predictor again") from err


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the block.

    The products of this network are too small to share: two threads that wait for each other on a
    busy machine took twice to ten times as long as one, and one gives the same result everywhere.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_head(name: str, dim: int, device: torch.device | None = None) -> Head:
    """Return an untrained head for embeddings of width `dim`.

    Raises
    ------
    ValueError
        There is no head of that name.
    """
    if name == "logistic":
        return LogisticHead(dim)
    if name == "mlp":
        return PerceptronHead(dim, device)
    raise ValueError(f"there is no head {name!r}; use logistic or mlp")
