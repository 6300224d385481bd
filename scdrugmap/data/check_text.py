"""The report of a check as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdrugmap.data.check import Check


def lines(check: Check) -> Iterator[str]:
    """Give facts, findings, what can use the file, and the command to type next."""
    facts = check.facts
    if facts:
        yield from _fact_lines(check, facts)
    for finding in check.findings:
        yield f"{finding.severity:<8} {finding.rule}  {finding.message}"
        if finding.hint:
            yield f"             {finding.hint}"
    if check.usable:
        yield "can be used by"
        plain = [item for item in check.usable if item.usable and not item.reason]
        told = [item for item in check.usable if item not in plain]
        width = max((len(item.name) for item in told), default=0)
        for item in told:
            yield f"  {'yes' if item.usable else 'no':<4} {item.name:<{width}}  {item.reason}"
        if plain:
            yield f"  yes  {', '.join(item.name for item in plain)}"
    if facts and check.labels and check.groups:
        label, group = check.labels[0], check.groups[0]
        words = "" if label.ready else " --sensitive A --resistant B"
        yield (
            f"next: scdrugmap benchmark --data {quote(check.source)} --label {quote(label.name)}"
            f"{words} --group {quote(group.name)} -o runs/{quote(facts['dataset'])}"
        )


def _fact_lines(check: Check, facts: dict[str, Any]) -> Iterator[str]:
    yield f"{check.source}: {facts['n_cells']:,} cells x {facts['n_genes']:,} genes"
    if facts["n_cells_read"] < facts["n_cells"]:
        yield f"  looked at {facts['n_cells_read']:,} cells from all over the file"
    yield (
        f"  values  {facts['values']} in {facts['location']} ({facts['storage']} "
        f"{facts['dtype']}), {facts['share_nonzero']:.1%} non-zero, "
        f"up to {facts['largest_value']:,.6g}"
    )
    medians = [f"{facts['median_genes']:,.0f} genes"]
    if facts["median_counts"] is not None:
        medians.insert(0, f"{facts['median_counts']:,.0f} counts")
        medians.append(f"{facts['median_mitochondrial_share']:.1%} mitochondrial")
    yield f"  cells   median {', '.join(medians)}"
    genes = facts["genes"]
    dropped = f", {genes['dropped']:,} left out" if genes["dropped"] else ""
    yield (
        f"  genes   {facts['gene_id']}: {genes['exact']:,} current names, "
        f"{genes['alias']:,} older ones, {genes['case']:,} by case, {genes['unmapped']:,} "
        f"without a symbol; {genes['joined']:,} joined{dropped}"
    )
    for label in check.labels:
        counts = ", ".join(f"{word} {n:,}" for word, n in label.counts.items())
        yield f"  label   {label.name}: {counts}"
    if check.groups:
        listed = ", ".join(f"{group.name} ({group.n_groups:,})" for group in check.groups)
        yield f"  group   {listed}"
