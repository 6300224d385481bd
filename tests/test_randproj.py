"""The embedding without learning: a fixed random projection of log-normalised expression."""

from __future__ import annotations

import math
import time
from hashlib import blake2b

import numpy as np
import pytest

from scdrugmap.baselines.projection import gene_vectors
from scdrugmap.baselines.randproj import SPEC
from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.embed import embed_rows
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.specs import Capability
from scdrugmap.testing import ModelConformance, synthetic_adata


class TestRandproj(ModelConformance):
    spec = SPEC


def embed(adata: object, loaded: LoadedModel) -> np.ndarray:
    with open_cells(adata) as cells:  # type: ignore[arg-type]
        rows = cells.rows(np.arange(cells.n_cells))
        return embed_rows(loaded.model, cells.genes, rows, cells.names)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("randproj")


def test_it_needs_no_weights_and_embeds_only(loaded: LoadedModel) -> None:
    assert not SPEC.needs_weights
    assert loaded.weights.source == "none"
    assert set(SPEC.capabilities) == {Capability.EMBED}
    assert loaded.model.traits.dim == 256


def test_dim_is_an_option() -> None:
    assert load_model("randproj", settings={"dim": "7"}).model.traits.dim == 7
    assert load_model("randproj", settings={"variant": "tiny"}).model.traits.dim == 32


def test_vectors_are_normal_independent_and_named() -> None:
    names = tuple(f"ENSG{number:011d}" for number in range(5000))
    vectors = gene_vectors(names, 65)
    scaled = vectors.astype(np.float64) * np.sqrt(65)
    assert vectors.dtype == np.float32
    assert abs(scaled.mean()) < 0.01
    assert abs(scaled.std() - 1) < 0.01
    assert abs((scaled**4).mean() - 3) < 0.1
    assert np.abs(np.corrcoef(scaled, rowvar=False) - np.eye(65)).max() < 0.08
    np.testing.assert_array_equal(gene_vectors(names[4321:4322], 65)[0], vectors[4321])


def plain_vector(name: str, dim: int) -> list[float]:
    """Spell out the rule with Python's integers: hash, splitmix64, Box and Muller."""
    mask = 2**64 - 1
    key = int.from_bytes(blake2b(b"0\x000\x00" + name.encode(), digest_size=8).digest(), "little")
    uniform = []
    for number in range(dim):
        z = (key + (number + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        uniform.append((((z ^ (z >> 31)) >> 11) + 0.5) / 2**53)
    half = dim // 2
    pairs = [(math.sqrt(-2 * math.log(uniform[i])), uniform[half + i]) for i in range(half)]
    cosines = [r * math.cos(2 * math.pi * u) for r, u in pairs]
    return [x / math.sqrt(dim) for x in cosines + [r * math.sin(2 * math.pi * u) for r, u in pairs]]


def test_vectors_never_change() -> None:
    name = "ENSG00000141510"
    np.testing.assert_allclose(gene_vectors((name,), 6)[0], plain_vector(name, 6), rtol=1e-6)


def test_counts_and_their_log_normalised_form_give_the_same_embedding(
    loaded: LoadedModel,
) -> None:
    counts, lognorm = (synthetic_adata(20, 300, values=values) for values in ("counts", "lognorm"))
    np.testing.assert_allclose(embed(counts, loaded), embed(lognorm, loaded), atol=1e-4)


def test_symbols_and_ensembl_ids_give_the_same_embedding(loaded: LoadedModel) -> None:
    symbols, ids = (synthetic_adata(20, 300, gene_id=kind) for kind in ("symbol", "ensembl"))
    np.testing.assert_allclose(embed(symbols, loaded), embed(ids, loaded), atol=1e-5)


def test_sequencing_depth_changes_nothing(loaded: LoadedModel) -> None:
    adata = synthetic_adata(20, 300)
    deeper = adata.copy()
    deeper.X = adata.X * 3
    np.testing.assert_allclose(embed(adata, loaded), embed(deeper, loaded), atol=1e-4)


def test_distances_of_log_normalised_cells_are_kept(loaded: LoadedModel) -> None:
    adata = synthetic_adata(20, 300, values="lognorm")
    found, dense = embed(adata, loaded), adata.X.toarray()
    pairs = np.triu_indices(20, 1)
    before = np.linalg.norm(dense[pairs[0]] - dense[pairs[1]], axis=1)
    after = np.linalg.norm(found[pairs[0]] - found[pairs[1]], axis=1)
    ratio = after / before
    assert 0.8 < ratio.min() <= ratio.max() < 1.2
    assert abs(ratio.mean() - 1) < 0.05


def test_genes_without_an_ensembl_id_are_not_known(loaded: LoadedModel) -> None:
    coverage = loaded.model.tokenizer.bind(Genes.from_names(["TP53", "no-gene", "ENSG00000146648"]))
    assert coverage.matched.tolist() == [True, False, True]


@pytest.mark.slow
def test_it_is_fast(loaded: LoadedModel) -> None:
    adata = synthetic_adata(2000, 3000)
    with open_cells(adata) as cells:
        rows = cells.rows(np.arange(cells.n_cells))
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            embed_rows(loaded.model, cells.genes, rows, cells.names)
            best = min(best, time.process_time() - began)
    assert 2000 / best > 2000  # 10,000 and more alone, of a processor that others use too
