"""Small synthetic cells with real gene names, for tests and for the conformance kit."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.specs import GeneId, Values

_MEAN_COUNT = 0.35  # per gene and cell: about a quarter of the entries are non-zero
_MOST_MITOCHONDRIAL = 8
_RESPONSE_SHARE = 0.1  # of the genes, those that differ between sensitive and resistant patients
_PATIENT_SPREAD = 0.3  # standard deviation of a patient's log effect on a gene
_BATCH_SPREAD = 0.2
_TARGET_SUM = 1e4


def synthetic_adata(
    n_cells: int = 64,
    n_genes: int = 800,
    *,
    seed: int = 0,
    values: Values = "counts",
    gene_id: GeneId = "symbol",
    n_patients: int = 8,
    signal: float = 1.0,
) -> AnnData:
    """Make cells of several patients, half of them sensitive.

    Patients take turns from the first cell on, so that any `n_patients` consecutive cells hold
    all of them. The same arguments give the same cells; no global random state is touched.

    Parameters
    ----------
    n_cells : int
    n_genes : int
        Current symbols of the packaged gene table, mitochondrial ones among them.
    seed : int
    values : {"counts", "lognorm"}
        Integers, or ``log1p`` of counts scaled to 10,000 per cell.
    gene_id : {"symbol", "ensembl"}
        What ``var_names`` are; the genes are the same.
    n_patients : int
        At least 2; every other patient is sensitive.
    signal : float
        Log fold change of the response genes between sensitive and resistant patients; 0: none.

    Returns
    -------
    AnnData
        ``X`` ((n_cells, n_genes) CSR float32), ``obs`` with ``patient``, ``response``
        (``sensitive`` or ``resistant``) and ``batch``.

    Raises
    ------
    ValueError
        A number is too small, or the gene table has fewer genes.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    if n_cells < 1 or n_genes < 1 or n_patients < 2:
        raise ValueError(
            f"need n_cells, n_genes >= 1 and n_patients >= 2, not {n_cells}, {n_genes}, "
            f"{n_patients}"
        )
    random = np.random.default_rng(seed)
    patient = np.arange(n_cells) % n_patients  # (n_cells,)
    sensitive = patient % 2 == 0
    batch = patient // 2 % 2
    log_mean = random.normal(np.log(_MEAN_COUNT), 1.0, n_genes)  # (n_genes,)
    of_patient = random.normal(0.0, _PATIENT_SPREAD, (n_patients, n_genes))
    of_batch = random.normal(0.0, _BATCH_SPREAD, (2, n_genes))
    responds = random.random(n_genes) < _RESPONSE_SHARE
    direction = np.where(random.random(n_genes) < 0.5, 0.5, -0.5) * responds  # (n_genes,)
    depth = random.normal(0.0, 0.3, n_cells)  # (n_cells,) log library size
    rate = np.exp(
        log_mean
        + of_patient[patient]
        + of_batch[batch]
        + signal * np.where(sensitive, 1.0, -1.0)[:, None] * direction
        + depth[:, None]
    )  # (n_cells, n_genes)
    counts = random.poisson(rate).astype(np.float32)
    if values == "lognorm":
        totals = counts.sum(1, keepdims=True)
        counts = np.log1p(counts / np.maximum(totals, 1) * _TARGET_SUM).astype(np.float32)
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical([f"P{number + 1:02d}" for number in patient]),
            "response": pd.Categorical(np.where(sensitive, "sensitive", "resistant")),
            "batch": pd.Categorical([f"B{number + 1}" for number in batch]),
        },
        index=[f"cell_{number:05d}" for number in range(n_cells)],
    )
    var = pd.DataFrame(index=_gene_names(n_genes, gene_id))
    return AnnData(csr_matrix(counts), obs=obs, var=var)


def _gene_names(n_genes: int, gene_id: GeneId) -> list[str]:
    """Return genes spread over the genome, mitochondrial ones last."""
    names, mitochondrial, coding = _genes()
    last = np.flatnonzero(mitochondrial & coding)[: min(_MOST_MITOCHONDRIAL, n_genes // 10)]
    others = np.flatnonzero(coding & ~mitochondrial)
    if n_genes - len(last) > len(others):
        others = np.flatnonzero(~mitochondrial)
    if n_genes - len(last) > len(others):
        raise ValueError(f"the gene table has {len(others) + len(last)} genes, not {n_genes}")
    spread = np.linspace(0, len(others) - 1, n_genes - len(last)).astype(np.int64)
    column = 0 if gene_id == "symbol" else 1
    return [str(name) for name in names[np.concatenate([others[spread], last]), column]]


@lru_cache(maxsize=1)
def _genes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (n, 2) symbols and Ensembl ids, and (n,) bool: mitochondrial, protein coding."""
    from scdrugmap.data.genes import gene_table

    table = gene_table()
    symbol = np.array(table.names("symbol"), object)
    _, ensembl, _ = table.resolve(list(symbol), "symbol")
    both = ensembl != ""
    symbol, ensembl = symbol[both], ensembl[both]
    mitochondrial = np.array([name.startswith("MT-") for name in symbol])
    coding = table.biotypes(ensembl) == "protein_coding"
    return np.stack([symbol, ensembl], axis=1), mitochondrial, coding
