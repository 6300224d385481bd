"""The explanation of one or several predictors: its table, its figures, and what to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.explanation.stability import compare_rankings, spearman, top_sizes
from scdrugmap.explanation.summed import ALL, Stratum

if TYPE_CHECKING:
    from scdrugmap.data.genes import Genes
    from scdrugmap.explanation.differential import Differential
    from scdrugmap.explanation.drawing import Drawn
    from scdrugmap.explanation.explained import Explained
    from scdrugmap.explanation.settings import Explaining, Image
    from scdrugmap.report.style import Picture

CONSENSUS = "consensus"
"""What stands for the mean of several predictors."""

DE_COLUMNS = ("de_effect", "de_statistic", "de_p", "de_q")

COLUMNS = (
    "predictor",
    "model",
    "strategy",
    "level",
    "stratum",
    "gene",
    "symbol",
    "ensembl",
    "n_cells",
    "n_expressing",
    "attribution_mean",
    "attribution_sd",
    "attribution_abs",
    "share",
    "rank",
    "rank_sd",
    "direction",
    "coefficient",
    "permutation",
    *DE_COLUMNS,
)
"""Columns of the table; see ``docs/reference/files.md``."""

SIGNIFICANT = 0.05
_MARKERS = 20


@dataclass(frozen=True)
class Explanation:
    """Which genes drive the predictions of one or several predictors on one file.

    Attributes
    ----------
    parts : tuple of Explained
        One per predictor.
    drawn : Drawn
    differential : Differential or None
    settings : Explaining
    dataset : str
    columns : (n_columns,) int64
        Gene of each column of the file, -1: left out.
    location : str
        Where the values of the file were.
    table : pandas.DataFrame
        What ``scdrugmap explain -o`` writes.
    stability : pandas.DataFrame
        See :func:`~scdrugmap.explanation.stability.compare_rankings`; between predictors, or between
        draws of cells of one predictor.
    """

    parts: tuple[Explained, ...]
    drawn: Drawn
    differential: Differential | None
    settings: Explaining
    dataset: str
    columns: np.ndarray
    location: str
    table: pd.DataFrame
    stability: pd.DataFrame

    @classmethod
    def of(
        cls,
        parts: Sequence[Explained],
        drawn: Drawn,
        differential: Differential | None,
        settings: Explaining,
        dataset: str,
        columns: np.ndarray,
        location: str,
    ) -> Explanation:
        """Bring the parts together."""
        if len(parts) > 1:
            rankings = {part.name: part.importances() for part in parts}
        else:
            draws = [s for s in parts[0].sums.strata if s[0] == "draw"]
            there = [s for s in draws if parts[0].sums.n_cells[parts[0].sums.strata.index(s)]]
            rankings = {f"draw {s[1]}": parts[0].importances(s) for s in there}
        spread = _rank_spread(rankings)
        tables = [_table_of(part, spread, drawn, differential, settings) for part in parts]
        if len(parts) > 1:
            tables.insert(0, _consensus(tables, spread))
        table = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
        return cls(
            tuple(parts),
            drawn,
            differential,
            settings,
            dataset,
            columns,
            location,
            table,
            compare_rankings(rankings),
        )

    def attribution(self, stratum: Stratum = ALL) -> np.ndarray:
        """Return the mean attribution of each gene, over predictors too ((n_genes,) float64).

        NaN for genes that not all predictors read.
        """
        return np.mean([part.sums.mean(stratum) for part in self.parts], axis=0)

    @property
    def name(self) -> str:
        """Name of the rows that the figures show: the only predictor, or their mean."""
        return CONSENSUS if len(self.parts) > 1 else self.parts[0].name

    @property
    def title(self) -> str:
        """What is explained, for figures."""
        info = self.parts[0].info
        if len(self.parts) > 1:
            return f"{len(self.parts)} predictors"
        return f"{info.name} ({info.strategy})" if info.strategy != "estimator" else info.name

    @property
    def genes(self) -> pd.DataFrame:
        """Rows of the table about all cells, by rank."""
        return self.rows(*ALL)

    def rows(self, level: str, stratum: str | None = None) -> pd.DataFrame:
        """Return rows of the table, of :attr:`name`, by rank."""
        table = self.table
        chosen = (table["predictor"] == self.name) & (table["level"] == level)
        if stratum is not None:
            chosen &= table["stratum"] == stratum
        return table[chosen].reset_index(drop=True)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        found = [*self.drawn.notices, *(notice for part in self.parts for notice in part.notices)]
        if self.differential is not None:
            found += self.differential.notices
        for part in self.parts:
            if part.n_train:
                found.append(
                    f"{part.name} was trained on {part.n_train:,} of the {part.n_cells:,} cells"
                )
        return tuple(dict.fromkeys(found))

    def record(self) -> dict[str, Any]:
        """Return everything but the table, JSON-able."""
        rows = self.genes
        markers = {
            label: rows.loc[rows["direction"] * sign > 0, "gene"].head(_MARKERS).tolist()
            for label, sign in ((SENSITIVE, 1), (RESISTANT, -1))
        }
        return {
            "dataset": self.dataset,
            "settings": self.settings.model_dump(mode="json"),
            "classes": "label" if self.drawn.has_labels else "call",
            "predictors": [part.record() for part in self.parts],
            "markers": markers,
            "stability": self._stability_record(),
            "differential_expression": self._differential_record(),
            "notices": list(self.notices),
        }

    def _stability_record(self) -> dict[str, Any] | None:
        if self.stability.empty:
            return None
        pairs = self.stability.drop_duplicates(["first", "second"])
        by_k = self.stability.groupby("k")[["overlap", "chance"]].mean().reset_index()
        return {
            "between": "predictors" if len(self.parts) > 1 else "disjoint draws of the cells",
            "n": len({*pairs["first"], *pairs["second"]}),
            "spearman": _rounded(pairs["spearman"].mean()),
            "top": [
                {
                    "k": int(row["k"]),
                    "overlap": _rounded(row["overlap"]),
                    "chance": _rounded(row["chance"]),
                }
                for row in by_k.to_dict("records")
            ],
        }

    def _differential_record(self) -> dict[str, Any] | None:
        found = self.differential
        if found is None:
            return None
        rows = self.genes.dropna(subset=["de_p"])
        strength = rows["de_statistic"].abs().to_numpy()
        k = top_sizes(len(rows))[-1] if len(rows) > 1 else 0
        first = set(rows["gene"].head(k))
        others = rows.assign(strength=strength).nlargest(k, "strength", keep="first")["gene"]
        agrees = np.sign(rows["direction"].head(k)) == np.sign(rows["de_effect"].head(k))
        return {
            "test": found.test,
            "n_sensitive": found.n_sensitive,
            "n_resistant": found.n_resistant,
            "n_significant": int((found.table["de_q"] < SIGNIFICANT).sum()),
            "spearman": _rounded(spearman(rows["attribution_abs"].to_numpy(), strength)),
            "top": {
                "k": k,
                "overlap": _rounded(len(first & set(others)) / k if k else float("nan")),
                "same_direction": _rounded(agrees.mean() if k else float("nan")),
            },
        }

    def lines(self) -> list[str]:
        """Return what to say at the end, one line each."""
        found = []
        for part in self.parts:
            error = "" if np.isnan(part.error) else f", off by {part.error:.2%} (median over cells)"
            check = (
                ""
                if np.isnan(part.agreement)
                else f"; rank correlation with a permutation of "
                f"{int((~np.isnan(part.permuted)).sum())} genes {part.agreement:.2f}"
            )
            found.append(
                f"{part.name}: {part.method} of {int(part.sums.read.sum()):,} genes over "
                f"{part.n_cells - part.n_unusable:,} cells{error}{check}"
            )
        record = self.record()
        for label, names in record["markers"].items():
            found.append(f"more of it speaks for {label}: {', '.join(names[:10]) or 'no gene'}")
        stability = record["stability"]
        if stability is not None:
            top = stability["top"][min(2, len(stability["top"]) - 1)]
            found.append(
                f"between {stability['n']} {stability['between']}: rank correlation "
                f"{_said(stability['spearman'])}, {top['overlap']:.0%} of the first {top['k']} genes "
                f"in common (by chance {top['chance']:.0%})"
            )
        de = record["differential_expression"]
        if de is not None:
            found.append(
                f"differential expression ({de['test']}, {de['n_sensitive']:,} sensitive, "
                f"{de['n_resistant']:,} resistant): {de['n_significant']:,} genes at q < "
                f"{SIGNIFICANT}, rank correlation with the attributions {_said(de['spearman'])}"
            )
        return found

    def pictures(self, image: Image = "svg") -> list[Picture]:
        """Draw all figures that there are data for."""
        from scdrugmap.explanation import figures

        found = [figures.bars(self, image), figures.dots(self, image)]
        if not self.stability.empty:
            found.append(figures.stability(self, image))
        if self.differential is not None:
            found.append(figures.expression(self, image))
        return found


def _table_of(
    part: Explained,
    spread: dict[str, float],
    drawn: Drawn,
    differential: Differential | None,
    settings: Explaining,
) -> pd.DataFrame:
    """Return all rows of one predictor."""
    genes = part.genes
    identity = genes.identity()
    everything = _of_stratum(part, ALL, genes)
    columns = everything["column"].to_numpy()
    everything["rank_sd"] = [spread.get(name, np.nan) for name in identity[columns]]
    if part.coefficients is not None:
        everything["coefficient"] = part.coefficients[columns]
    everything["permutation"] = part.permuted[columns]
    if differential is not None:
        for name in DE_COLUMNS:
            everything[name] = differential.table[name].to_numpy()[columns]
    tables = [everything]
    shown = set(columns[: settings.top])
    for stratum in part.sums.strata:
        number = part.sums.strata.index(stratum)
        if stratum[0] not in ("class", "sample") or not part.sums.n_cells[number]:
            continue
        rows = _of_stratum(part, stratum, genes)
        if stratum[0] == "sample":
            rows = rows[rows["column"].isin(shown)]
        tables.append(rows)
    table = pd.concat(tables, ignore_index=True).reindex(columns=[*COLUMNS, "column"])
    table["predictor"], table["model"] = part.name, part.info.name
    table["strategy"] = part.info.strategy
    return table


def _of_stratum(part: Explained, stratum: Stratum, genes: Genes) -> pd.DataFrame:
    frame = part.sums.table(stratum, genes)
    for name in ("rank_sd", "coefficient", "permutation", *DE_COLUMNS):
        frame[name] = np.nan
    return frame


def _rank_spread(rankings: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the standard deviation of each gene's rank over rankings that have it."""
    from scipy.stats import rankdata

    ranks: dict[str, list[float]] = {}
    for values in rankings.values():
        for gene, rank in zip(values, rankdata([-v for v in values.values()]), strict=True):
            ranks.setdefault(gene, []).append(float(rank))
    return {gene: float(np.std(own, ddof=1)) for gene, own in ranks.items() if len(own) > 1}


def _consensus(tables: Sequence[pd.DataFrame], spread: dict[str, float]) -> pd.DataFrame:
    """Return the mean over predictors, of all cells and of the classes, ranked by mean share."""
    rows = pd.concat([t[t["level"] != "sample"] for t in tables], ignore_index=True)
    grouped = rows.groupby(["level", "stratum", "gene", "symbol", "ensembl"], sort=False)
    found = grouped.agg(
        n_cells=("n_cells", "max"),
        n_expressing=("n_expressing", "max"),
        attribution_mean=("attribution_mean", "mean"),
        attribution_sd=("attribution_mean", _sd),
        attribution_abs=("attribution_abs", "mean"),
        # A gene that a predictor does not read has no share in its answers.
        share=("share", "sum"),
        rank_sd=("rank_sd", "first"),
        direction=("direction", "mean"),
        coefficient=("coefficient", "mean"),
        permutation=("permutation", "mean"),
        **{name: (name, "first") for name in DE_COLUMNS},
    ).reset_index()
    found["share"] /= len(tables)
    found["predictor"] = CONSENSUS
    for name in ("model", "strategy"):
        found[name] = rows[name].iloc[0] if rows[name].nunique() == 1 else "several"
    order = {stratum: number for number, stratum in enumerate(dict.fromkeys(found["stratum"]))}
    found["place"] = found["stratum"].map(order)
    found = found.sort_values(["place", "share"], ascending=[True, False], kind="stable")
    found["rank"] = found.groupby("place").cumcount() + 1
    return found.drop(columns="place")


def _sd(values: pd.Series) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
