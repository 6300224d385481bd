"""A model under test, with the cells it is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scdrugmap.specs import ModelOptions, ModelSpec
from scdrugmap.testing.synthetic import synthetic_adata

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from scdrugmap.data.genes import Genes
    from scdrugmap.modelkit.contract import CellModel
    from scdrugmap.modelkit.tokens import Tokens

N_CELLS = 24
N_GENES = 600
N_GROUPS = 3
_SHORT_CELLS = {1: 10, 2: 40}  # cells and the genes they keep, so that batches need padding
_TOKEN_BUDGET = 2000


@dataclass(frozen=True)
class Sample:
    """Some cells as a tokenizer gets them.

    ``rows`` ((n, n_genes) CSR float32), ``genes`` (n_genes), ``names`` ((n,) str) and ``groups``
    ((n,) str, the patient of each cell).
    """

    rows: csr_matrix
    genes: Genes
    names: np.ndarray
    groups: np.ndarray

    def take(self, index: np.ndarray) -> Sample:
        """Return the cells at positions `index` ((m,) int), in that order."""
        return Sample(self.rows[index], self.genes, self.names[index], self.groups[index])

    def columns(self, index: np.ndarray) -> Sample:
        """Return the columns at positions `index` ((m,) int), in that order, sorted again."""
        rows = self.rows[:, index].tocsr()
        rows.sort_indices()
        return Sample(rows, self.genes.take(index), self.names, self.groups)


@dataclass
class Subject:
    """A model under test.

    Parameters
    ----------
    spec : ModelSpec
    options : ModelOptions, optional
        Default: the variant ``tiny`` where there is one, else the default variant.
    weights : Path, optional
        Folder of weights; None: random tensors over the synthetic vocabulary.
    seed : int
    """

    spec: ModelSpec
    options: ModelOptions | None = None
    weights: Path | None = None
    seed: int = 0
    _built: dict[int, CellModel] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.options is None:
            tiny = "tiny" in {variant.name for variant in self.spec.variants}
            options = self.spec.options(**({"variant": "tiny"} if tiny else {}))
            self.options = cast("ModelOptions", options)

    @classmethod
    def from_settings(cls, spec: ModelSpec, settings: Mapping[str, str]) -> Subject:
        """Make a subject with options as ``--set key=value`` names them.

        Raises
        ------
        UsageError
            There is no such option, or the value is none of its kind.
        """
        from scdrugmap.model.load import parse_options

        plain = cls(spec).options
        assert plain is not None
        if settings:
            given = {"variant": plain.variant, **settings}
            plain = cast("ModelOptions", parse_options(spec.options, given, spec.name))
        return cls(spec, plain)

    def build(self, seed: int | None = None) -> CellModel:
        """Build the model anew: with the subject's seed, or with another."""
        from scdrugmap.model.load import load_model

        weights = "random" if self.weights is None else self.weights
        seed = self.seed if seed is None else seed
        return load_model(self.spec, options=self.options, weights=weights, seed=seed).model

    @property
    def model(self) -> CellModel:
        """The model, built once; checks that change a model build their own."""
        if self.seed not in self._built:
            self._built[self.seed] = self.build()
        return self._built[self.seed]

    @cached_property
    def adata(self) -> AnnData:
        """Cells of a kind the model accepts, some of them with very few genes."""
        return self._cells(N_CELLS, N_GENES)

    @cached_property
    def sample(self) -> Sample:
        """The cells of :attr:`adata`, as the core gives them to the tokenizer."""
        return self.read(self.adata)

    def larger_sample(self, n_cells: int, n_genes: int) -> Sample:
        """Return cells in which every gene is expressed."""
        adata = self._cells(n_cells, n_genes)
        adata.X = np.asarray(adata.X.todense()) + np.float32(1)
        return self.read(adata)

    def _cells(self, n_cells: int, n_genes: int) -> AnnData:
        from scipy.sparse import csr_matrix

        values = "counts" if "counts" in self.spec.accepts else "lognorm"
        adata = synthetic_adata(
            n_cells,
            n_genes,
            seed=1,
            values=cast("Any", values),
            gene_id=self.spec.gene_id,
            n_patients=N_GROUPS,
        )
        dense = np.asarray(adata.X.todense())
        for cell, n_kept in _SHORT_CELLS.items():
            if cell < n_cells:
                dense[cell, np.flatnonzero(dense[cell])[n_kept:]] = 0
        adata.X = csr_matrix(dense)
        return adata

    def read(self, source: AnnData | Path) -> Sample:
        """Read cells through the core's own reader."""
        from scdrugmap.data.cells import open_cells

        with open_cells(source, accepts=self.spec.accepts, gene_id=self.spec.gene_id) as cells:
            rows = cells.rows(np.arange(cells.n_cells))
            groups = cells.obs["patient"].astype(str).to_numpy(object)
            return Sample(rows, cells.genes, cells.names, groups)

    def encode(self, sample: Sample, model: CellModel | None = None) -> Tokens:
        """Bind the sample's genes and turn its cells into tokens."""
        model = model or self.model
        model.tokenizer.bind(sample.genes)
        return model.tokenizer.encode(sample.rows, sample.names)

    def embed(
        self, sample: Sample, model: CellModel | None = None, token_budget: int = _TOKEN_BUDGET
    ) -> np.ndarray:
        """Embed cells with the core's own loop: (n, D) float32, NaN for unusable cells."""
        from scdrugmap.model.embed import embed_rows

        return embed_rows(
            model or self.model,
            sample.genes,
            sample.rows,
            sample.names,
            token_budget=token_budget,
            groups=sample.groups if self.spec.cell_batching == "group" else None,
        )

    def one_group(self) -> Sample:
        """Return the cells of one group: what a batch of any model may hold."""
        groups = self.sample.groups
        return self.sample.take(np.flatnonzero(groups == groups[0]))

    def forward(self, model: CellModel) -> Tensor:
        """Run the network once on the cells of one group, as training does: (B, D)."""
        tokens = self.encode(self.one_group(), model)
        result: Tensor = model.module(model.collate(tokens))
        return result


@contextmanager
def mode(model: CellModel, *, training: bool) -> Iterator[None]:
    """Put the network into train() or eval() inside the block."""
    before = model.module.training
    model.module.train(training)
    try:
        yield
    finally:
        model.module.train(before)
