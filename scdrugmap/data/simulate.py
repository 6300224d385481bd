"""A simulated cohort with known truth, on which a confounded evaluation can be seen to fail.

Each patient's cells share one response, as in real cohorts. Patients differ from each other in
many genes, responders from non-responders only in a few and weakly: a model that is tested on
other cells of patients it has seen can recognise the patient, and looks excellent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.hdf5_writing import write_h5ad
from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import UsageError
from scdrugmap.files import atomic_path, check_output

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

DRUG = "simulated"
"""What stands in ``obs["drug"]``: no real drug, so that nobody takes the cells for real ones."""

CONTENT = "simulated counts"

_N_MITOCHONDRIAL = 13  # the protein-coding genes of the mitochondrion
_MITOCHONDRIAL_BOOST = 2.0  # log; a few per cent of all counts, as in real cells
_CELLS_SPREAD = 0.35  # log standard deviation of the number of cells of a patient


@dataclass(frozen=True)
class Simulation:
    """Parameters of a cohort; all that decides its cells.

    Parameters
    ----------
    n_patients : int
        At least 4; half of them, rounded down, are sensitive.
    cells_per_patient : int
        Mean number of cells of a patient; the numbers vary about it and add up.
    n_genes : int
        Genes, 13 mitochondrial ones among them.
    n_batches : int
        Libraries over which patients of both responses are dealt out.
    seed : int
    signal : float
        Log fold change of the genes of the response programme between sensitive and resistant
        patients. With logistic regression on variable genes, AUROC over cells of new patients is
        about 0.6 at the default (0.4 to 0.75 by seed), 0.93 at 1.2; over cells of known patients
        it is 0.99 at both.
    programme_genes : int
        Genes of the response programme, half of them up in sensitive patients.
    response_spread : float
        Standard deviation of how strongly patients of one response show the programme, as a share
        of `signal`.
    patient_effect : float
        Standard deviation of a patient's log effect on a gene.
    patient_genes : float
        Share of genes that differ between patients.
    batch_effect : float
        Standard deviation of a library's log effect on a gene.
    depth : float
        Median counts of a cell.
    depth_spread : float
        Standard deviation of the log depth of the cells of a patient.
    sample_depth_spread : float
        Standard deviation of the log depth of samples.
    dispersion : float
        Of the negative binomial: variance = mean + dispersion * mean**2.
    """

    n_patients: int = 14
    cells_per_patient: int = 72
    n_genes: int = 2000
    n_batches: int = 3
    seed: int = 0
    signal: float = 0.4
    programme_genes: int = 60
    response_spread: float = 0.5
    patient_effect: float = 0.45
    patient_genes: float = 0.3
    batch_effect: float = 0.15
    depth: float = 2500.0
    depth_spread: float = 0.35
    sample_depth_spread: float = 0.2
    dispersion: float = 0.3

    def __post_init__(self) -> None:
        least = {
            "n_patients": 4,
            "cells_per_patient": 1,
            "n_genes": 1,
            "n_batches": 1,
            "programme_genes": 0,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} must be at least {smallest}, not {getattr(self, name)}")
        if self.programme_genes > self.n_genes:
            raise ValueError(
                f"programme_genes ({self.programme_genes}) exceeds n_genes ({self.n_genes})"
            )
        for name in ("depth", "dispersion"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.patient_genes <= 1:
            raise ValueError(f"patient_genes must be a share, not {self.patient_genes}")


def simulate_cohort(
    n_patients: int = Simulation.n_patients,
    cells_per_patient: int = Simulation.cells_per_patient,
    n_genes: int = Simulation.n_genes,
    *,
    seed: int = Simulation.seed,
    signal: float = Simulation.signal,
    **parameters: Any,
) -> AnnData:
    """Simulate the cells of a cohort of patients treated with one drug.

    Parameters
    ----------
    n_patients, cells_per_patient, n_genes, seed, signal
        See :class:`Simulation`.
    **parameters
        The other parameters of :class:`Simulation`.

    Returns
    -------
    AnnData
        ``X``: (n_cells, n_genes) CSR float32, negative binomial counts. ``obs``: ``patient``,
        ``sample``, ``batch``, ``response``, ``drug``. ``var``: index = current symbols, with
        ``ensembl_id``, ``programme`` (true log fold change of the response) and
        ``mitochondrial``. ``uns``: ``x_content`` and ``simulation`` (all parameters, as JSON).

    Raises
    ------
    ValueError
        A parameter is out of range.
    TypeError
        There is no such parameter.

    Examples
    --------
    >>> simulate_cohort(n_patients=4, cells_per_patient=5, n_genes=50).n_vars
    50
    """
    settings = Simulation(
        n_patients, cells_per_patient, n_genes, seed=seed, signal=signal, **parameters
    )
    return _make(settings)


def simulation(**parameters: Any) -> Simulation:
    """Return the settings of a cohort that a user asked for.

    Raises
    ------
    UsageError
        A parameter is out of range.
    """
    try:
        return Simulation(**parameters)
    except ValueError as err:
        raise UsageError(str(err), hint="see scdrugmap datasets simulate --help") from err


def write_cohort(settings: Simulation, output: Path, *, overwrite: bool = False) -> None:
    """Simulate a cohort and write it as h5ad, whole or not at all.

    Raises
    ------
    UsageError
        The output exists, or its folder does not.
    ResourceError
        It cannot be written.
    """
    check_output(output, overwrite=overwrite)
    adata = _make(settings)
    with atomic_path(output) as temporary:
        write_h5ad(adata, temporary, compression="gzip")


def _make(settings: Simulation) -> AnnData:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(settings.seed)
    genes = _genes(settings.n_genes, random)
    mitochondrial = genes["mitochondrial"].to_numpy(bool)
    sensitive, batch_of = _patients(settings, random)  # (n_patients,) each
    patient = _cells(settings, random)  # (n_cells,)
    programme = _programme(settings, mitochondrial, random)  # (n_genes,)

    log_mean = random.normal(0.0, 1.6, settings.n_genes) + _MITOCHONDRIAL_BOOST * mitochondrial
    differs = random.random((settings.n_patients, settings.n_genes)) < settings.patient_genes
    of_patient = differs * random.normal(0.0, settings.patient_effect, differs.shape)
    of_batch = random.normal(0.0, settings.batch_effect, (settings.n_batches, settings.n_genes))
    strength = random.normal(1.0, settings.response_spread, settings.n_patients)
    response = np.where(sensitive, 0.5, -0.5) * strength  # (n_patients,)
    profile = np.exp(log_mean + of_patient + of_batch[batch_of] + response[:, None] * programme)
    profile /= profile.sum(1, keepdims=True)  # (n_patients, n_genes)
    sample_depth = random.normal(0.0, settings.sample_depth_spread, settings.n_patients)
    log_depth = random.normal(sample_depth[patient], settings.depth_spread)
    depth = settings.depth * np.exp(log_depth)  # (n_cells,)
    mean = depth[:, None] * profile[patient]  # (n_cells, n_genes)
    shape = 1.0 / settings.dispersion
    counts = random.poisson(random.gamma(shape, mean / shape)).astype(np.float32)

    names = np.array([f"P{number + 1:02d}" for number in range(settings.n_patients)], object)
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical(names[patient]),
            "sample": pd.Categorical([f"{name}_before" for name in names[patient]]),
            "batch": pd.Categorical([f"B{number + 1}" for number in batch_of[patient]]),
            "response": pd.Categorical(np.where(sensitive[patient], SENSITIVE, RESISTANT)),
            "drug": pd.Categorical([DRUG] * len(patient)),
        },
        index=[f"simulated_{number + 1:05d}" for number in range(len(patient))],
    )
    genes["programme"] = programme
    adata = AnnData(csr_matrix(counts), obs=obs, var=genes)
    adata.uns["x_content"] = CONTENT
    adata.uns["simulation"] = json.dumps(asdict(settings), sort_keys=True)
    return adata


def _genes(n_genes: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw genes of the packaged table, in the order of the genome."""
    import pandas as pd

    from scdrugmap.data.genes import gene_table

    table = gene_table()
    symbols = np.array(table.names("symbol"), object)
    _, ensembl, _ = table.resolve(symbols, "symbol")
    coding = table.biotypes(ensembl) == "protein_coding"
    of_mitochondrion = table.positions(ensembl)[0] == "MT"
    own = np.flatnonzero(coding & of_mitochondrion)[: min(_N_MITOCHONDRIAL, n_genes)]
    others = np.flatnonzero(coding & ~of_mitochondrion)
    if n_genes - len(own) > len(others):
        raise ValueError(f"n_genes must be at most {len(others) + len(own):,}, not {n_genes:,}")
    chosen = np.sort(
        np.concatenate([own, random.choice(others, n_genes - len(own), replace=False)])
    )
    return pd.DataFrame(
        {"ensembl_id": ensembl[chosen], "mitochondrial": of_mitochondrion[chosen]},
        index=pd.Index(symbols[chosen]),
    )


def _patients(settings: Simulation, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return response ((n_patients,) bool) and batch ((n_patients,) int) of each patient."""
    sensitive = random.permutation(np.arange(settings.n_patients) < settings.n_patients // 2)
    batch = np.empty(settings.n_patients, np.int64)
    # Dealt out within each response, so that no batch stands for a response.
    for start, value in enumerate((True, False)):
        members = random.permutation(np.flatnonzero(sensitive == value))
        batch[members] = (np.arange(len(members)) + start) % settings.n_batches
    return sensitive, batch


def _cells(settings: Simulation, random: np.random.Generator) -> np.ndarray:
    """Return the patient of each cell ((n_cells,) int64), patient after patient."""
    share = np.exp(random.normal(0.0, _CELLS_SPREAD, settings.n_patients))
    total = settings.n_patients * settings.cells_per_patient
    borders = np.round(np.cumsum(share / share.sum()) * (total - settings.n_patients))
    sizes = 1 + np.diff(borders, prepend=0).astype(np.int64)  # everybody has a cell
    return np.repeat(np.arange(settings.n_patients), sizes)


def _programme(
    settings: Simulation, mitochondrial: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return the true log fold change of each gene, sensitive over resistant ((n_genes,))."""
    effect = np.zeros(settings.n_genes)
    nuclear = np.flatnonzero(~mitochondrial)
    chosen = random.choice(nuclear, min(settings.programme_genes, len(nuclear)), replace=False)
    effect[chosen] = settings.signal
    effect[chosen[len(chosen) // 2 :]] *= -1
    return effect
