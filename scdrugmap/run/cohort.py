"""The labelled cells of a benchmark: read once, drawn if too many, and described."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.config import FACET_COLUMNS
from scdrugmap.data.samplesheet import read_samplesheet
from scdrugmap.run.record import DatasetRecord

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig, DataFile
    from scdrugmap.data.cells import Cells
    from scdrugmap.evaluation.design import Design


_MOST_NAMES = 50  # of one facet of a dataset that a record lists


@dataclass(frozen=True)
class Cohort:
    """Labelled cells and where they come from.

    Attributes
    ----------
    design : Design
        The cells that take part.
    datasets : tuple of DatasetRecord
    content : str
        Hash of the values, genes, labels and origins of these cells.
    notices : tuple of str
    """

    design: Design
    datasets: tuple[DatasetRecord, ...]
    content: str
    notices: tuple[str, ...]


def cell_arguments(config: BenchmarkConfig, file: DataFile) -> dict[str, Any]:
    """Return the arguments of ``open_cells`` for one file, without ``where`` and ``sample``."""
    sheet = None if config.samplesheet is None else read_samplesheet(config.samplesheet)
    return {
        "name": file.dataset,
        "sheet": sheet,
        "layer": config.layer,
        "values": config.values,
        "gene_id": config.gene_id,
        "round_counts": config.round_counts,
        "transpose": config.transpose,
    }


def where_pairs(config: BenchmarkConfig) -> tuple[tuple[str, str], ...]:
    """Return ``where`` as pairs of column and value."""
    pairs = (text.partition("=") for text in config.where)
    return tuple((column, value) for column, _, value in pairs)


@contextmanager
def open_sources(config: BenchmarkConfig) -> Iterator[list[Cells]]:
    """Open all files of a benchmark for reading."""
    from scdrugmap.data.cells import open_cells

    with ExitStack() as stack:
        yield [
            stack.enter_context(
                open_cells(
                    item.path,
                    where=where_pairs(config),
                    sample=config.sample,
                    **cell_arguments(config, item),
                )
            )
            for item in config.data
        ]


def read_cohort(config: BenchmarkConfig) -> Cohort:
    """Read labels, origins and fingerprints of all files.

    Raises
    ------
    UsageError
        A file or a column does not exist.
    DataError
        A file or its labels cannot be used.
    """
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.evaluation.design import Design, read_design

    labels = LabelMap.parse(config.sensitive, config.resistant, config.drop)
    parts = []
    for item in config.data:
        part = read_design(
            [item.path],
            label=config.label,
            labels=labels,
            group=config.group,
            sample=config.sample,
            study=config.study,
            cell_line=config.cell_line,
            control=config.control,
            **{name: getattr(config, name) for name in FACET_COLUMNS},
            where=where_pairs(config),
            cell_arguments=cell_arguments(config, item),
        )
        frame = part.frame.assign(dataset=item.dataset)
        facts = item.facts()
        study = facts.pop("study", "")
        if config.study is None:
            frame["study"] = study or item.dataset
        parts.append(replace(part, frame=frame.assign(**facts)))
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    frame = frame.fillna("")  # facts that are told of some files only
    frame = frame.sort_values(["dataset", "cell"], kind="stable", ignore_index=True)
    said = tuple(dict.fromkeys(text for part in parts for text in part.notices))
    design, notices = draw_cells(Design(frame, said), config.max_cells, config.split_seed)
    with open_sources(config) as sources:
        datasets = tuple(
            _describe(cells, item, design.frame, part.notices)
            for cells, item, part in zip(sources, config.data, parts, strict=True)
        )
        content = _content(design.frame, sources)
    return Cohort(design, datasets, content, notices)


def draw_cells(design: Design, most: int | None, seed: int) -> tuple[Design, tuple[str, ...]]:
    """Draw at most `most` cells, the same share of each group and label, at least one of each.

    Parameters
    ----------
    design : Design
    most : int or None
        None: all cells.
    seed : int

    Returns
    -------
    Design
    tuple of str
        What to say about it.
    """
    frame = design.frame
    if most is None or len(frame) <= most:
        return design, ()
    code = frame.groupby(["dataset", "donor", "label"]).ngroup().to_numpy()
    wanted = _shares(np.bincount(code), most)
    random = np.random.default_rng(seed)
    keep = [
        random.choice(np.flatnonzero(code == number), wanted[number], replace=False)
        for number in range(len(wanted))
    ]
    rows = np.sort(np.concatenate(keep))
    notice = (
        f"{len(rows):,} of {len(frame):,} labelled cells were drawn (--max-cells {most}), the same "
        f"share of each group and label, seed {seed}"
    )
    drawn = frame.iloc[rows].reset_index(drop=True)
    return replace(design, frame=drawn), (notice,)


def _shares(sizes: np.ndarray, most: int) -> np.ndarray:
    """Divide `most` over strata in proportion to their sizes, at least one each.

    The remainder goes to the largest fractions, so that the sum is exact where it can be.
    """
    exact = sizes * most / sizes.sum()
    whole = np.maximum(1, exact.astype(np.int64))
    order = np.argsort(whole - exact, kind="stable")
    room = max(0, most - int(whole.sum()))
    whole[order[:room]] += 1
    return np.minimum(whole, sizes)


def _describe(
    cells: Cells, item: DataFile, frame: pd.DataFrame, notices: tuple[str, ...]
) -> DatasetRecord:
    from scdrugmap.data.labels import RESISTANT, SENSITIVE
    from scdrugmap.data.simulate import DRUG
    from scdrugmap.evaluation.groups import connect_cells

    own = frame[frame["dataset"] == item.dataset]
    group = connect_cells(frame)[(frame["dataset"] == item.dataset).to_numpy()]
    drugs = set(cells.obs["drug"].astype(str)) if "drug" in cells.obs else set()
    return DatasetRecord(
        name=item.dataset,
        path=item.path.name,
        study=item.study,
        facets={
            name: tuple(sorted(set(own[name]) - {""}))[:_MOST_NAMES]
            for name in FACET_COLUMNS
            if name in own
        },
        n_cells=cells.n_cells,
        n_used=len(own),
        n_sensitive=int((own["label"] == SENSITIVE).sum()),
        n_resistant=int((own["label"] == RESISTANT).sum()),
        n_samples=int(own.loc[own["sample"] != "", "sample"].nunique()),
        n_groups=int(pd.Series(group).nunique()) if (own["donor"] != "").any() else 0,
        n_genes=cells.n_genes,
        values=cells.matrix.values,
        location=cells.matrix.location,
        gene_id=cells.mapping.gene_id,
        gene_counts=dict(cells.mapping.counts),
        simulated=drugs == {DRUG},
        notices=tuple(dict.fromkeys([*cells.notices, *notices])),
    )


def _content(frame: pd.DataFrame, sources: list[Cells]) -> str:
    """Hash all that a job reads: which cells, what is in them, and what they are called."""
    digest = hashlib.sha256()
    for cells in sorted(sources, key=lambda cells: cells.name):
        digest.update(f"{cells.name}\0{cells.genes.digest()}\0{cells.matrix.values}\n".encode())
    for column in frame.columns:
        text = "\n".join(frame[column].astype(str)) + "\0"
        digest.update(f"{column}\0{text}".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
