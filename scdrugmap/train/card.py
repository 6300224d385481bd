"""The model card of a predictor: what it is, what it was trained on, what it must not be used for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scdrugmap.train.record import PredictorInfo


def model_card(info: PredictorInfo) -> str:
    """Return the card as Markdown with a YAML head."""
    training, split = info.training, info.split
    weights = info.weights
    licence = weights.licence if weights and weights.licence else "see the training data"
    share = training.n_sensitive / max(training.n_cells, 1)
    lines = [
        "---",
        "library_name: scdrugmap",
        f"license: {json.dumps(licence)}",
        "tags: [single-cell, drug-response]",
        "---",
        "",
        f"# {info.title or info.name}",
        "",
        (
            f"Predicts for each cell whether it is sensitive or resistant. Made by scdrugmap "
            f"{info.scdrugmap} with {info.plugin.distribution} {info.plugin.version}."
        ),
        "",
        (
            "Intended use: research only. It is no medical device and its answers are no advice on "
            "treatment."
        ),
        "",
        "## What was learnt from",
        "",
        (
            f"- {training.n_cells:,} cells of {training.n_groups:,} groups, {share:.0%} sensitive; "
            f"values: {info.values}"
        ),
        *(f"- {_inline(item.name)}: {item.n_cells:,} cells" for item in training.datasets),
        f"- fold {split.fold} of split {_inline(split.split_id)}, seed {info.seed}",
        *_left_out(info),
        *_facts(info),
        "",
        "## How",
        "",
        f"- {info.strategy}: {info.name}"
        + (f" with head {info.head} on {info.dim} dimensions" if info.head else ""),
        *([f"- options: {json.dumps(info.options, sort_keys=True)}"] if info.options else []),
        *([f"- weights: {weights.label}, {weights.digest[:16]}"] if weights else []),
        *([f"- licence of the weights: {weights.licence}"] if weights and weights.licence else []),
        *(
            ["- the weights must not be used commercially"]
            if weights and weights.commercial_use is False
            else []
        ),
        (
            f"- genes: {info.genes.n_genes:,} shared by the training files, "
            f"{info.genes.n_needed:,} read"
        ),
        f"- sensitive from p = {info.threshold.value:.4g} on ({info.threshold.source})",
        "",
        "## Limits",
        "",
        (
            "- The label of a cell is that of its sample; the predictor may have learnt the sample's "
            "batch or exposure instead of sensitivity."
        ),
        (
            "- Its figures hold for cells of the test role of its own split only; "
            "`scdrugmap evaluate` gives them with intervals."
        ),
        *(f"- {_inline(notice)}" for notice in info.notices),
        "",
    ]
    return "\n".join(lines)


def _left_out(info: PredictorInfo) -> list[str]:
    training = info.training
    reasons = (
        (training.n_empty, "without counts"),
        (training.n_unknown, "without a gene that the model knows"),
        (training.n_beyond_cap, f"beyond the cap of {training.max_cells or 0:,} cells"),
    )
    return [f"- left out: {n:,} cells {why}" for n, why in reasons if n]


def _facts(info: PredictorInfo) -> list[str]:
    facts = (
        ("drug", info.drug),
        ("cancer type", info.cancer_type),
        ("tissue", info.tissue),
        ("label basis", info.label_basis),
    )
    return [f"- {name}: {', '.join(map(_inline, values))}" for name, values in facts if values]


def _inline(text: str) -> str:
    """Return text of a file as one harmless line of Markdown."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
