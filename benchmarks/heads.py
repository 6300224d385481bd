"""Measure the training of heads on 50,000 cached embeddings of width 512; aims: 60 s and 5 s.

Prints one JSON object per head: wall and processor seconds, and the accuracy on other cells, which
shows that something was learnt. Embeddings are normal, labels follow a random direction with noise.
"""

from __future__ import annotations

import json
import time

import numpy as np

N_CELLS, DIM = 50_000, 512
AIMS_S = {"logistic": 5.0, "mlp": 60.0}


def embeddings(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n_cells, DIM)).astype(np.float32)
    direction = np.random.default_rng(0).standard_normal(DIM) / np.sqrt(DIM)
    return x, (x @ direction + 0.5 * random.standard_normal(n_cells) > 0).astype(np.float64)


def measure(name: str) -> dict[str, object]:
    import torch

    from scdrugmap.train.heads import make_head

    x, y = embeddings(N_CELLS, 1)
    others, labels = embeddings(5_000, 2)
    head = make_head(name, DIM)
    wall, processor = time.perf_counter(), time.process_time()
    head.fit(x, y, 0)
    return {
        "head": name,
        "n_cells": N_CELLS,
        "dim": DIM,
        "wall_s": round(time.perf_counter() - wall, 2),
        "processor_s": round(time.process_time() - processor, 2),
        "aim_s": AIMS_S[name],
        "threads": torch.get_num_threads(),
        "accuracy": round(float(((head.predict(others) > 0.5) == labels).mean()), 4),
    }


if __name__ == "__main__":
    for name in AIMS_S:
        print(json.dumps(measure(name)))
