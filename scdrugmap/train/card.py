"""The model card of a predictor: what it is, what it was trained on, what it must not be used for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scdrugmap.train.calibration import NOT_CALIBRATED
from scdrugmap.train.conformal import DEFAULT_LEVEL, at_level, guarantee
from scdrugmap.train.samples import FAR_SHARE

if TYPE_CHECKING:
    from scdrugmap.train.record import PredictorInfo, PromptInfo

_MOST_LOSSES = 10


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
        f"# {_inline(info.title or info.name)}",
        "",
        (
            f"Predicts for each cell whether it is sensitive or resistant. Made by scdrugmap "
            f"{_inline(info.scdrugmap)} with {_inline(info.plugin.distribution)} "
            f"{_inline(info.plugin.version)}."
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
            if training.n_cells
            else "- nothing: no label of any cell was looked at (zero-shot)"
        ),
        *(f"- {_inline(item.name)}: {item.n_cells:,} cells" for item in training.datasets),
        f"- fold {split.fold} of split {_inline(split.split_id)}, seed {info.seed}",
        *_left_out(info),
        *_facts(info),
        "",
        "## How",
        "",
        f"- {info.strategy}: {_inline(info.name)}"
        + (f" with head {_inline(info.head)} on {info.dim} dimensions" if info.head else ""),
        *_tuning(info),
        *(
            [f"- options: {_code(json.dumps(info.options, sort_keys=True))}"]
            if info.options
            else []
        ),
        *(
            [f"- weights: {_inline(weights.label)}, {_inline(weights.digest[:16])}"]
            if weights
            else []
        ),
        *(
            [f"- licence of the weights: {_inline(weights.licence)}"]
            if weights and weights.licence
            else []
        ),
        *([f"- {_inline(weights.notice)}"] if weights and weights.notice else []),
        *(
            ["- the weights must not be used commercially"]
            if weights and weights.commercial_use is False
            else []
        ),
        *(
            _prompt(info.prompt)
            if info.prompt
            else [
                (
                    f"- genes: {info.genes.n_genes:,} shared by the training files, "
                    f"{info.genes.n_needed:,} read"
                )
            ]
        ),
        f"- sensitive from p = {info.threshold.value:.4g} on ({_inline(info.threshold.source)})",
        "",
        "## Probabilities, and how far to trust them",
        "",
        *_calibration(info),
        *_conformal(info),
        *_domain(info),
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


def _prompt(prompt: PromptInfo) -> list[str]:
    told = ", ".join(map(_inline, prompt.fields)) or "nothing else"
    lines = [
        (
            f"- asked with template {_inline(prompt.template)} "
            f"({_inline(prompt.template_digest[:16])}): at most "
            f"{prompt.n_genes:,} genes of a cell, highest first, and where known {told}"
        )
    ]
    if prompt.n_examples:
        lines.append(
            f"- this file holds the names of the highest genes and the labels of "
            f"{prompt.n_examples} training cells, which are shown before each question"
        )
    if prompt.remote:
        lines.append("- predicting sends these names to the server named under base_url")
    return lines


def _calibration(info: PredictorInfo) -> list[str]:
    found = info.calibration
    if found is None:
        return [f"- {NOT_CALIBRATED}"]
    return [
        (
            f"- logits are divided by a temperature of {found.temperature:.3g}, found on "
            f"{found.n_cells:,} validation cells of {found.n_groups:,} groups (every group counts "
            f"the same): negative log-likelihood {found.loss_before:.3f} before, "
            f"{found.loss_after:.3f} after"
        )
    ]


def _conformal(info: PredictorInfo) -> list[str]:
    if info.conformal is None:
        return []
    level = at_level(info.conformal, DEFAULT_LEVEL)
    lines = [f"- conformal sets at level {level.level:g}: {guarantee(info.conformal, level)}"]
    if level.coverage is None:
        return [*lines, "- too few validation groups to check the coverage of these sets"]
    labels = (("sensitive", level.coverage_sensitive), ("resistant", level.coverage_resistant))
    each = ", ".join(f"{name} {share:.0%}" for name, share in labels if share is not None)
    checked = (
        f"- coverage of these sets on validation groups that they were not calibrated on: "
        f"{level.coverage:.0%} ({each}; mean over groups)"
    )
    return [*lines, checked]


def _domain(info: PredictorInfo) -> list[str]:
    if info.reference is None:
        return [
            "- no embeddings: it cannot be said how far a new cell lies from the training cells"
        ]
    return [
        (
            f"- 99 % of {info.reference.n_cells:,} training cells lie within "
            f"{info.reference.distance_99:.4g} of their mean embedding; do not trust predictions "
            f"of a sample with more than {FAR_SHARE:.0%} of its cells beyond that"
        )
    ]


def _tuning(info: PredictorInfo) -> list[str]:
    """Say how the network was fine-tuned, and what that did."""
    tuning = info.tuning
    if tuning is None:
        return []
    what = (
        f"adapters of rank {tuning.lora.r} on {len(tuning.adapted)} layers"
        if tuning.lora is not None
        else "all of the network"
    )
    by = {"none": "the last step", "training groups": "held-out groups of the training cells"}
    losses = ", ".join(
        f"{row.loss:.3g}" + (f" ({row.validation_loss:.3g})" if row.validation_loss else "")
        for row in tuning.history[-_MOST_LOSSES:]
    )
    return [
        (
            f"- trained: {what}, {tuning.n_trained:,} parameters with the head; step "
            f"{tuning.best_step:,} of {tuning.n_steps:,}, chosen by "
            f"{by.get(tuning.stopped_by, tuning.stopped_by)}"
        ),
        f"- loss (on cells that tell when to stop), at the last evaluations: {losses}",
        f"- the training changed the embedding of a cell by {tuning.effect:.2g} of its length",
        (
            f"- {tuning.cells_per_s:,.3g} cells/s, {tuning.tokens_per_s:,.3g} tokens/s in "
            f"{tuning.n_processes} processes, {tuning.peak_bytes / 1e9:.2f} GB at most"
        ),
    ]


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


def _code(text: str) -> str:
    """Return ASCII text as code, in which Markdown reads nothing."""
    return "`" + text.replace("`", "'") + "`"


def _inline(text: str) -> str:
    """Return text of a file as one harmless line of Markdown."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
