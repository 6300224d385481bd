"""How fast each model tokenises and embeds cells on one thread, at its published size.

Random tensors, float32, seconds of processor time of the best of several rounds. The yardstick is
the rate of float32 matrix products in the same process, measured around each round; ``share`` is
the part of it that the network reaches, counting only the operations that it carries out. Each row
is a process of its own, so that its peak memory is its own.

    python benchmarks/models.py [--only MODEL]... [-o benchmarks/results/models.json]

``docs/models.md`` is made from the file (``scripts/make_models_page.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scdrugmap.modelkit import SequenceModel

RESULTS = Path(__file__).parent / "results" / "models.json"
ROUNDS = 3
MATRIX = 2_048


@dataclass(frozen=True)
class Row:
    """One setting, and what the original's own code reached at it.

    ``length`` is the number of expressed genes of a cell; ``positions`` cuts scBERT's vocabulary.
    The original's rates and the goals are those of a core of 110 GFLOP/s.
    """

    model: str
    title: str
    length: int
    settings: dict[str, str] = field(default_factory=dict)
    n_tokenised: int = 512
    n_embedded: int = 3
    positions: int | None = None
    original_tokenising: float | None = None
    original_forward: float | None = None
    goal_forward: float | None = None
    goal_share: float | None = None


ROWS = (
    Row("scgpt", "1,200 tokens", 3000, {}, 512, 3, None, 1120, 0.43, 1.0, 0.68),
    Row("geneformer", "V1 10M, 1,800 tokens", 1800, {"variant": "V1-10M"}, 512, 4, None, 290,
        1.25, 2.1, 0.60),
    Row("geneformer", "V2 104M, 1,800 tokens", 1800, {"variant": "V2-104M"}, 512, 1, None, 390,
        0.167, 0.20, 0.75),
    Row("tgpt", "63 tokens", 1500, {}, 512, 32, None, 128, 5.4, 6.7, 0.80),
    Row("uce", "4 layers, 1,075 tokens", 2240, {}, 512, 2, None, 94, 0.38, 0.52, 0.72),
    Row("scfoundation", "648 tokens", 646, {}, 512, 2, None, 3.6, 0.50, 0.62, 0.71),
    Row("scbert", "1,201 tokens", 600, {}, 512, 4, 1201, 50, 1.39, 2.2, 0.45),
    Row("scbert", "16,907 tokens", 1500, {}, 256, 1, 16907, None, 0.05, 0.20, 0.55),
    Row("cellplm", "1,200 genes, 1,024 cells", 1200, {}, 1024, 1024, None, None, 411, 650, None),
    Row("celllm", "1,200 tokens and padding", 1200, {}, 512, 2, None, 110, 0.36, 0.50, 0.57),
)  # fmt: skip


def best(amount: float, work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return an amount per second of processor time, of the best of several rounds."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return amount / min(seconds)


def measure(row: Row) -> dict[str, object]:
    """Measure one row in this process."""
    import numpy as np
    import torch

    from scdrugmap.model.batching import Network
    from scdrugmap.model.device import peak_memory
    from scdrugmap.model.load import load_model
    from scdrugmap.model.parts import group_indices
    from scdrugmap.model.throughput import flop_per_cell, made_up_cells

    torch.set_num_threads(1)
    loaded = load_model(row.model, settings=row.settings, weights="random", seed=0)
    if row.positions is not None:
        loaded.model = scbert_of(row.positions)
    rows = made_up_cells(loaded, max(row.n_tokenised, row.n_embedded), row.length, 0)
    names = np.array([f"cell{number}" for number in range(rows.shape[0])], object)
    tokenizer = loaded.model.tokenizer
    tokenising = best(rows.shape[0], lambda: tokenizer.encode(rows, names))
    tokens = tokenizer.encode(rows[: row.n_embedded], names[: row.n_embedded])
    grouped = loaded.spec.cell_batching == "group"
    groups = group_indices(None, row.n_embedded) if grouped else None
    cpu = torch.device("cpu")
    network = Network(loaded.model, device=cpu, name=row.model)
    factor = torch.randn(MATRIX, MATRIX)
    matrix, forward = 0.0, 0.0
    for _ in range(ROUNDS):
        matrix = max(matrix, best(2.0 * MATRIX**3, lambda: factor @ factor))
        forward = max(forward, best(row.n_embedded, lambda: network.embed(tokens, groups), 1))
    matrix = max(matrix, best(2.0 * MATRIX**3, lambda: factor @ factor))
    flop = flop_per_cell(network, tokens, row.n_embedded if grouped else None)
    n_tokens = int(loaded.model.cost(tokens).sum()) / row.n_embedded
    traits = loaded.model.traits
    return {
        **asdict(row),
        "dim": traits.dim,
        "max_tokens": traits.max_tokens,
        "vocabulary_size": traits.vocabulary_size,
        "tokens_per_cell": n_tokens,
        "tokenising_cells_per_s": tokenising,
        "forward_cells_per_s": forward,
        "forward_tokens_per_s": forward * n_tokens,
        "gflop_per_cell": flop / 1e9,
        "matrix_gflop_per_s": matrix / 1e9,
        "share": forward * flop / matrix,
        "peak_memory_gb": peak_memory(cpu) / 1e9,
        "torch": torch.__version__,
    }


def scbert_of(n_positions: int) -> SequenceModel:
    """Return scBERT over a vocabulary of another size than the packaged gene table."""
    from scdrugmap.modelkit import SequenceModel, Traits, seeded, synthetic_vocabulary
    from scdrugmap_plugin_scbert import SIZES
    from scdrugmap_plugin_scbert.model import ScBert
    from scdrugmap_plugin_scbert.tokenizer import Tokenizer

    names = synthetic_vocabulary("symbol")[: n_positions - 1]
    with seeded(0):
        module = ScBert(n_positions, **SIZES)
    return SequenceModel(
        traits=Traits(dim=int(SIZES["dim"]), max_tokens=n_positions, vocabulary_size=len(names)),
        tokenizer=Tokenizer({name: place for place, name in enumerate(names)}),
        module=module.eval(),
        input_module="tokens",
        padding={"level": 0},
    )


def main() -> None:
    """Measure the rows, one process each, and write them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="MODEL", help="default: all")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.row is not None:
        json.dump(measure(ROWS[given.row]), sys.stdout)
        return
    known = json.loads(given.output.read_text()) if given.output.exists() else []
    found = {(item["model"], item["title"]): item for item in known}
    for number, row in enumerate(ROWS):
        if given.only and row.model not in given.only:
            continue
        command = [sys.executable, __file__, "--row", str(number)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        item = json.loads(done.stdout)
        found[(row.model, row.title)] = item
        print(
            f"{row.model:14} {row.title:26} tokens {item['tokenising_cells_per_s']:9,.0f} cells/s, "
            f"forward {item['forward_cells_per_s']:8.3g} cells/s, share {item['share']:4.0%} of "
            f"{item['matrix_gflop_per_s']:.0f} GFLOP/s, {item['peak_memory_gb']:.1f} GB",
            flush=True,
        )
    rows = [found[key] for row in ROWS if (key := (row.model, row.title)) in found]
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
