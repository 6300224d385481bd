"""The methods paragraph of a run, ready to paste, made of what was recorded and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.report.citations import citations
from scdrugmap.report.summary import display_name, role_of

if TYPE_CHECKING:
    from scdrugmap.report.summary import Summary
    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

_PACKAGES = ("python", "torch", "scikit-learn", "scipy", "transformers", "peft")

_HEADS = {
    "logistic": "logistic regression",
    "mlp": "a perceptron with two hidden layers of 512 units",
}

_STRATEGIES = {
    "frozen": "with frozen weights and a classifier on their embeddings",
    "lora": "fine-tuned by low-rank adapters",
    "full": "fine-tuned as a whole",
    "prompt": "by prompting",
}


def methods_paragraphs(run: RunRecord, summary: Summary, *, compared: str = "") -> list[str]:
    """Return the paragraphs: cells, models, splits, statistics, software.

    Parameters
    ----------
    run : RunRecord
    summary : Summary
    compared : str
        A sentence about tests between models, if there were any.
    """
    return [
        text
        for text in (
            _cells(run),
            _models(run),
            " ".join(_split(item, run) for item in summary.evaluated),
            _statistics(run, compared),
            _software(run),
        )
        if text
    ]


def _cells(run: RunRecord) -> str:
    data = run.datasets
    n, n_sensitive = sum(d.n_used for d in data), sum(d.n_sensitive for d in data)
    what = "simulated cells" if all(d.simulated for d in data) else "labelled cells"
    return (
        f"We used {n:,} {what} ({n_sensitive:,} sensitive, {n - n_sensitive:,} resistant) of "
        f"{sum(d.n_groups for d in data):,} groups and {sum(d.n_samples for d in data):,} samples "
        f"in {len(data)} {'dataset' if len(data) == 1 else 'datasets'} "
        f"({_and([d.name for d in data])}). A group is a connected set of cells of one donor, one "
        "sample or one shared control, and of copies of a cell."
    )


def _models(run: RunRecord) -> str:
    keys = {name: work.key for work in citations(run) for name in work.models if work.key}

    def named(model: ModelRecord) -> str:
        key = keys.get(model.model or model.name)
        return display_name(model) + (f" [{key}]" if key else "")

    sentences = []
    competing = [model for model in run.models if role_of(model) == "model"]
    estimators = [named(m) for m in competing if m.strategy == "estimator"]
    if estimators:
        sentences.append(f"Estimators on log-normalised expression: {_and(estimators)}.")
    for strategy, said in _STRATEGIES.items():
        of = [m for m in competing if m.strategy == strategy]
        if of:
            weights = [f"{named(m)} ({m.weights})" if m.weights else named(m) for m in of]
            sentences.append(f"Models {said}: {_and(weights)}.")
    beside = [named(model) for model in run.models if role_of(model) != "model"]
    if beside:
        sentences.append(f"References and controls: {_and(beside)}.")
    return " ".join(sentences)


def _split(item: ProtocolRecord, run: RunRecord) -> str:
    how = (
        "no group is on both sides of a split"
        if item.family == "sound"
        else "random cells, so that groups are on both sides: for comparison with publications only"
    )
    validation = (
        ", validation groups set aside in the training part" if run.config.get("validation") else ""
    )
    heads = sorted(set(item.heads.values()))
    said = f"; classifier on embeddings: {_and([_HEADS.get(h, h) for h in heads])}" if heads else ""
    return f"{item.name}: {item.n_folds} folds, {how}{validation} (manifest {item.split_id}){said}."


def _statistics(run: RunRecord, compared: str) -> str:
    seeds, draws = run.config.get("seeds", ()), run.config.get("draws", 2000)
    trained = ""
    if seeds:
        listed = _and([str(seed) for seed in seeds])
        trained = (
            f"Everything was trained with {len(seeds)} seed(s) ({listed}) on the same splits. "
        )
    return (
        f"{trained}Metrics are of pooled out-of-fold predictions (AUROC; macro-F1 and MCC at a "
        "threshold of 0.5), averaged over seeds; the standard deviation over seeds is reported "
        "apart. Test cells without an answer count as wrong calls and as a probability of 0.5. "
        f"95 % intervals are percentiles of a hierarchical bootstrap ({draws:,} draws: studies, "
        "groups within studies, cells within groups); with fewer than five groups none is given. "
        "The best constant predictor of the same test cells stands beside every number."
    ) + (f" {compared}" if compared else "")


def _software(run: RunRecord) -> str:
    versions = run.provenance.get("versions", {})
    listed = [f"{name} {versions[name]}" for name in _PACKAGES if name in versions]
    version = run.provenance.get("scdrugmap", "")
    return (
        f"Software: scDrugMap {version} [scdrugmap]"
        + (f", {', '.join(listed)}" if listed else "")
        + f". The configuration has the hash {run.config_id[:16]}. The evaluation re-examines that "
        "of [scdrugmap-paper]."
    )


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
