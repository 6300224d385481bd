"""Make ``docs/models.md``: one table of all models, from their specs and the benchmarks' output.

    python scripts/make_models_page.py            # writes docs/models.md
    python scripts/make_models_page.py --check    # fails if it is not current

The specs say what a model is; ``benchmarks/results/models.json`` and ``parity.json`` what was
measured. A figure that nobody measured is left empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scdrugmap.registry import get_registry
from scdrugmap.specs import ModelSpec, Options, TextModelSpec

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "benchmarks" / "results"
MILLION_CELLS = ROOT / "tests" / "faults" / "results" / "million_cells.json"

HEAD = """# Models

<!-- made by scripts/make_models_page.py from the specs and benchmarks/results; do not edit -->

{sentence} `scdrugmap models show NAME` says more about each, and how to get its weights.

## What they are

| model | source | size | gene ids | longest cell | embedding | default choices | licence of the weights | licence of the plugin's code |
|---|---|---|---|---|---|---|---|---|
"""

MEASURED = """
## What was measured

Largest difference: to the numbers of the original code on golden data (random weights in the
published layout), over all comparisons that the golden tests make with an absolute tolerance in
float32: hidden states, embeddings and variants. Tokens are equal.

Speed: published sizes, random weights, float32, one thread, seconds of processor time. *Share* is
the part of the rate of float32 matrix products, measured in the same process ({rates} GFLOP/s), that the network reaches.

| model | setting | largest difference | tokenising, cells/s | times the original's | forward, cells/s | the original's | share | peak memory, GB |
|---|---|---|---|---|---|---|---|---|
"""

MEMORY = """
Peak memory of the whole process, variant `tiny`, from disk: the tokenizer over all blocks of a file,
and from file to file without the cache. What grows is the table of cells with their names.

| model | what | 30,000 cells, MB | 300,000 cells, MB | growth |
|---|---|---|---|---|
"""

MILLION = """
The same for verbs as a user types them, at 30,000 genes with 200 values per cell
(`benchmarks/million_cells.py`). Seconds are those of one core.

| verb | cells | peak memory, MB | most open files | seconds | cells/s |
|---|---|---|---|---|---|
"""

FOOT = """
The originals' rates were measured once on a core of 110 GFLOP/s. Peak memory is that of the whole
process. `models.py`, `parity.py` and `memory.py` in `benchmarks/` measure again; `scdrugmap throughput`
measures your machine and, with `--weights`, your weights.
"""


def read(name: str) -> Any:
    """Read a file of results."""
    return json.loads((RESULTS / name).read_text("utf-8"))


def defaults(options: type[Options]) -> str:
    """Return the options with their defaults."""
    shown = []
    for name, field in options.model_fields.items():
        if name != "variant":
            value = str(field.get_default(call_default_factory=True)).lower()
            shown.append(f"`{name}={value}`")
    return ", ".join(shown)


def what_row(spec: ModelSpec | TextModelSpec, rows: list[dict[str, Any]]) -> list[str]:
    """Return the row of a model in the first table."""
    source = f"[{spec.title}]({spec.homepage})" if spec.homepage else spec.title
    if isinstance(spec, TextModelSpec):
        where = "an endpoint" if spec.remote else "this machine"
        return [spec.name, source, f"runs on {where}", "symbol", "", "none: it answers questions",
                defaults(spec.options), "", spec.code_licence]  # fmt: skip
    size = ", ".join(
        f"{variant.name} ({variant.title})" if variant.title else variant.name
        for variant in spec.variants
        if variant.published
    )
    longest = [longest_cell(row) for row in rows]
    dims = sorted({row["dim"] for row in rows})
    return [
        spec.name,
        source,
        size,
        spec.gene_id,
        " or ".join(sorted(set(longest))),
        " or ".join(map(str, dims)),
        defaults(spec.options),
        spec.weights_licence or "needs none",
        spec.code_licence,
    ]


def longest_cell(row: dict[str, Any]) -> str:
    """Return how long a cell may be."""
    if row["max_tokens"] is None:
        return "no limit"
    if row["max_tokens"] > row["vocabulary_size"]:
        return "all genes it knows"
    return f"{row['max_tokens']:,} tokens"


def measured_row(row: dict[str, Any], parity: dict[str, Any]) -> list[str]:
    """Return a row of the second table."""
    close = parity.get(row["model"])
    original = row["original_tokenising"]
    return [
        row["model"],
        row["title"],
        f"{close['largest_difference']:.1e}" if close else "",
        f"{row['tokenising_cells_per_s']:,.0f}",
        f"{row['tokenising_cells_per_s'] / original:,.0f}" if original else "",
        f"{row['forward_cells_per_s']:.3g}",
        f"{row['original_forward']:g}" if row["original_forward"] else "",
        f"{row['share']:.0%}",
        f"{row['peak_memory_gb']:.1f}",
    ]


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def page() -> str:
    """Return the page."""
    rows, parity = read("models.json"), read("parity.json")
    specs = get_registry().models
    n_single = sum(isinstance(spec, ModelSpec) and spec.needs_weights for spec in specs.values())
    others = sorted(set(specs) - {"randproj"})
    sentence = (
        f"{len(others)} foundation models ({n_single} embed cells) and `randproj`, a control."
    )
    text = HEAD.format(sentence=sentence)
    for name, spec in sorted(specs.items()):
        text += line(what_row(spec, [row for row in rows if row["model"] == name]))
    rates = [row["matrix_gflop_per_s"] for row in rows]
    text += MEASURED.format(rates=f"{min(rates):.0f} to {max(rates):.0f}")
    for row in rows:
        text += line(measured_row(row, parity))
    for name in sorted(set(parity) - {row["model"] for row in rows}):
        close = f"{parity[name]['largest_difference']:.1e}"
        text += line([name, "tiny checkpoints only", close, *[""] * 6])
    text += MEMORY
    for case, peaks in read("memory.json").items():
        few, many = peaks["peak_mb"]
        text += line([*case.split(), f"{few:,}", f"{many:,}", f"{many / few - 1:.0%}"])
    text += MILLION
    for verb, runs in json.loads(MILLION_CELLS.read_text("utf-8"))["details"].items():
        for run in runs:
            peak, files = f"{run['peak_bytes'] / 1e6:,.0f}", str(run["most_open_files"])
            times = f"{run['cpu_seconds']:,.0f}", f"{run['cells_per_s']:,}"
            text += line([verb, f"{run['cells']:,}", peak, files, *times])
    return text + FOOT


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not current")
    given = parser.parse_args()
    text = page()
    if not given.check:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not current: run scripts/make_models_page.py")


if __name__ == "__main__":
    main()
