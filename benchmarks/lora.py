"""Compare a LoRA step of the training loop with a bare loop over the same network and batches.

The aim is within 10 %: reading tokens, padding, seeds of dropout, clipping and the sum over batches
must cost next to nothing. scGPT of published size with random weights; both loops do the same steps
in turns, and the fastest round of each counts, since other work on the machine only slows down.
Prints one JSON object with wall and processor seconds of a step.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

N_CELLS, N_GENES, STEP_CELLS, N_STEPS, ROUNDS = 8, 1_500, 4, 2, 3


def measure(folder: Path) -> dict[str, object]:
    import torch

    from scdrugmap.data.cells import open_cells
    from scdrugmap.model.batching import EXACT_ABOVE, default_budget
    from scdrugmap.model.embed import EmbeddingJob
    from scdrugmap.model.load import load_model
    from scdrugmap.model.token_store import store_tokens
    from scdrugmap.run.store import Store
    from scdrugmap.testing import synthetic_adata
    from scdrugmap.train.finetune import Tuner
    from scdrugmap.train.labelled import LabelledTokens
    from scdrugmap.train.processes import Processes
    from scdrugmap.train.settings import FineTuning
    from scdrugmap.train.trainee import Trainee, cell_losses

    loaded = load_model("scgpt", weights="random")
    assert loaded.spec.lora is not None
    source = folder / "cells.h5ad"
    synthetic_adata(N_CELLS, N_GENES).write_h5ad(source)
    with open_cells(source) as cells:
        store = Store(folder / "cache", quiet=True)
        job = EmbeddingJob(cells, loaded, store=store, device="cpu", min_genes=1, quiet=True)
        tokens = store_tokens(job, np.arange(N_CELLS))
        y = (cells.obs["response"] == "sensitive").to_numpy(float)
    data = LabelledTokens(tokens, y, np.zeros(N_CELLS, object), None)
    settings = FineTuning(max_steps=N_STEPS, batch_size=STEP_CELLS, patience=0)

    def tuner() -> Tuner:
        trainee = Trainee(loaded.model, loaded.spec.lora, seed=0, name="scgpt")
        return Tuner(
            trainee,
            data,
            None,
            settings,
            strategy="lora",
            head="logistic",
            start=np.arange(4),
            seed=0,
            processes=Processes("cpu"),
            quiet=True,
        )

    def bare(made: Tuner) -> tuple[float, float]:
        """The same steps without anything around them; batches are ready."""
        trainee = made.trainee
        budget = default_budget(torch.device("cpu"))
        steps = [
            [
                (trainee.model.collate(tokens.take(batch)), torch.from_numpy(y[batch]).float())
                for batch in made.plan.batches(step, budget, exact_above=EXACT_ABOVE)
            ]
            for step in made.plan.epoch(0)[:N_STEPS]
        ]
        parameters = list(trainee.trainable().values())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4)
        trainee.train()
        wall, processor = time.perf_counter(), time.process_time()
        for step in steps:
            optimizer.zero_grad(set_to_none=True)
            for inputs, wanted in step:
                losses = cell_losses(trainee.head(trainee.module(inputs)), wanted)
                (losses.sum() / STEP_CELLS).backward()
            optimizer.step()
        return time.perf_counter() - wall, time.process_time() - processor

    def whole(made: Tuner) -> tuple[float, float]:
        processor = time.process_time()
        course = made.run()
        return course.seconds, time.process_time() - processor

    rounds = [(bare(tuner()), whole(tuner())) for _ in range(ROUNDS)]
    plain, loop = (np.array([pair[n] for pair in rounds]).min(0) / N_STEPS for n in (0, 1))
    return {
        "model": "scgpt",
        "step_cells": STEP_CELLS,
        "tokens_per_cell": round(float(tokens.cost.mean())),
        "threads": torch.get_num_threads(),
        "bare_wall_s": round(float(plain[0]), 3),
        "loop_wall_s": round(float(loop[0]), 3),
        "bare_processor_s": round(float(plain[1]), 3),
        "loop_processor_s": round(float(loop[1]), 3),
        "ratio_wall": round(float(loop[0] / plain[0]), 3),
        "ratio_processor": round(float(loop[1] / plain[1]), 3),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))
