"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scdrugmap.model.embed import embed_rows
from scdrugmap.model.load import LoadedModel
from scdrugmap_plugin_cellplm.tokenizer import Tokenizer, gumbel

from .conftest import FOLDER, Cells, encode, original

Golden = dict[str, np.ndarray]

# The original's own float32 and float64 runs differ by 1.3e-6.
TOLERANCE = 5e-6
# Logits, and states before the last norm, are of magnitude 5.
STATE_TOLERANCE = 2e-5

LATENTS = pytest.mark.parametrize("latent", ["gmvae", "vae"])


def fix_clusters(loaded: LoadedModel, clusters: np.ndarray) -> None:
    """Let each of the 16 cells, by name, belong to a given cluster, whatever its logits say."""
    clusters = np.asarray(clusters)

    class Fixed(Tokenizer):
        def uniforms(self, cells: np.ndarray, draw: int) -> np.ndarray:
            of_cell = clusters[[int(name.removeprefix("cell")) for name in cells]]
            return np.where(of_cell[:, None] == np.arange(self.n_draws), 1.0, 1e-30)

    loaded.model.tokenizer.__class__ = Fixed


def load(golden: Golden, latent: str, name: str, **settings: str) -> LoadedModel:
    """Load a checkpoint; with clusters, each cell gets the one that the original drew."""
    if latent == "vae":
        return original(latent, **settings)
    loaded = original(latent, cluster="sampled", **settings)
    fix_clusters(loaded, golden[f"gmvae__cluster_for_{name}"])
    return loaded


def output(loaded: LoadedModel, cells: Cells) -> np.ndarray:
    """Send all cells, the one without a known gene, too, through the network as one batch."""
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(encode(loaded, cells))).numpy()


def test_known_genes_and_log_counts_agree(golden: Golden, cells: Cells) -> None:
    loaded = original("vae")
    tokenizer = loaded.model.tokenizer
    coverage = tokenizer.bind(cells[1])
    kept = cells[1].published[coverage.matched]
    assert kept.tolist() == golden["kept_genes"].tolist()
    index = np.array([tokenizer.genes[name] for name in kept])
    np.testing.assert_array_equal(index, golden["kept_gene_index"])
    tokens = encode(loaded, cells)
    values = np.zeros((16, 420), np.float32)
    values[np.repeat(np.arange(16), tokens.lengths), tokens.flat["id"]] = tokens.flat["value"]
    np.testing.assert_allclose(values[:, index], golden["log1p"], rtol=0, atol=1e-6)
    assert np.count_nonzero(values) == np.count_nonzero(golden["log1p"])
    assert tokens.usable.tolist() == [True] * 15 + [False]


@LATENTS
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("emb_all", {}),
        ("emb_chunk5", {"context": "5"}),
        ("emb_single", {"context": "1"}),
        ("emb_single_first100", {"context": "1", "max_genes": "100"}),
    ],
)
def test_embeddings_agree(
    golden: Golden, cells: Cells, latent: str, name: str, settings: dict[str, str]
) -> None:
    found = output(load(golden, latent, name, **settings), cells)
    np.testing.assert_allclose(found, golden[f"{latent}__{name}"], rtol=0, atol=TOLERANCE)


@LATENTS
def test_embeddings_of_samples_agree_through_the_loop_of_the_core(
    golden: Golden, cells: Cells, samples: np.ndarray, latent: str
) -> None:
    rows, genes, names = cells
    loaded = load(golden, latent, "emb_by_sample")
    found = embed_rows(loaded.model, genes, rows, names, groups=samples, token_budget=1)
    expected = golden[f"{latent}__emb_by_sample"]
    np.testing.assert_allclose(found[:15], expected[:15], rtol=0, atol=TOLERANCE)
    assert np.isnan(found[15]).all()
    # Who is in the sequence does matter.
    assert np.abs(expected - golden[f"{latent}__emb_all"])[:15].max() > 1e-3


@pytest.mark.parametrize("cluster", ["argmax", "expected"])
def test_repeatable_embeddings_agree(golden: Golden, cells: Cells, cluster: str) -> None:
    found = output(original("gmvae", cluster=cluster), cells)
    np.testing.assert_allclose(found, golden[f"gmvae__emb_{cluster}"], rtol=0, atol=TOLERANCE)


def test_the_embedding_in_every_cluster_agrees(golden: Golden, cells: Cells) -> None:
    for cluster in range(16):
        loaded = original("gmvae", cluster="sampled")
        fix_clusters(loaded, np.full(16, cluster))
        np.testing.assert_allclose(
            output(loaded, cells),
            golden["gmvae__emb_per_cluster"][:, cluster],
            rtol=0,
            atol=TOLERANCE,
        )


def test_the_draws_of_the_original_give_its_clusters(golden: Golden, cells: Cells) -> None:
    loaded = original("gmvae", cluster="sampled")
    tokens = encode(loaded, cells)
    tokens.cell["noise"] = gumbel(golden["gmvae__uniform_draw"])
    with torch.inference_mode():
        found = loaded.model.module(loaded.model.collate(tokens)).numpy()
    np.testing.assert_allclose(found, golden["gmvae__emb_all"], rtol=0, atol=TOLERANCE)


@LATENTS
def test_states_agree_stage_by_stage(golden: Golden, cells: Cells, latent: str) -> None:
    loaded = original(latent)
    module = loaded.model.module
    batch = loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        embedded = module.embedder(batch)
        found = {
            "h_embedder": embedded,
            "h_encoder": module.encode(embedded),
            "h_prenorm": module.states(batch),
        }
        if latent == "gmvae":
            found["logits"] = module.latent.logits(found["h_prenorm"])
            found["prob"] = found["logits"].softmax(-1)
    for name, values in found.items():
        np.testing.assert_allclose(
            values, golden[f"{latent}__{name}"], rtol=0, atol=STATE_TOLERANCE, err_msg=name
        )


def gradient_norms(
    loaded: LoadedModel, batch: dict[str, torch.Tensor], golden: Golden, latent: str
) -> tuple[float, list[float]]:
    """Return the loss of the golden head, and the norms of its gradients by published name."""
    module = loaded.model.module
    head = [torch.from_numpy(golden[f"{latent}__head_{part}"]) for part in "wb"]
    labels = torch.from_numpy(golden[f"{latent}__labels_onehot"])
    loss = F.binary_cross_entropy_with_logits(module(batch) @ head[0] + head[1], labels)
    loss.backward()
    latent_layer = module.latent.joint if latent == "gmvae" else module.latent
    prefix = "latent.layers.1."
    name = "inference.inference_qzyx.0.weight" if latent == "gmvae" else "hid_2mu.weight"
    ours = {
        "embedder.feat_enc.emb": module.embedder.genes.embedding,
        "encoder.layers.0.self_attn.query_projection.weight": module.layers[0].attention.q_proj,
        "encoder.layers.0._ff_block.3.weight": module.layers[0].feed_forward.linear2,
        "encoder.layers.0.norm1.weight": module.layers[0].norm1,
        prefix + name: latent_layer,
    }
    names = golden[f"{latent}__grad_names"].tolist()
    assert set(ours) == set(names)
    return float(loss.detach()), [float(ours[name].weight.grad.norm()) for name in names]


@LATENTS
def test_gradients_agree(golden: Golden, cells: Cells, latent: str) -> None:
    loaded = load(golden, latent, "emb_all")
    tokens = encode(loaded, cells)
    if latent == "gmvae":
        tokens.cell["noise"] = gumbel(golden["gmvae__uniform_draw"])
    loss, norms = gradient_norms(loaded, loaded.model.collate(tokens), golden, latent)
    assert loss == pytest.approx(float(golden[f"{latent}__loss"]), rel=1e-5)
    np.testing.assert_allclose(norms, golden[f"{latent}__grad_norms"], rtol=1e-4)


def test_gradients_of_fixed_clusters_agree(golden: Golden, cells: Cells) -> None:
    loaded = load(golden, "gmvae", "emb_all")
    _, norms = gradient_norms(loaded, loaded.model.collate(encode(loaded, cells)), golden, "gmvae")
    expected = golden["gmvae__grad_norms_fixed_cluster"]
    np.testing.assert_allclose(norms, expected, rtol=1e-4)


@LATENTS
def test_float64_runs_agree_with_float32_ones(golden: Golden, cells: Cells, latent: str) -> None:
    loaded = load(golden, latent, "emb_all")
    loaded.model.module.double()
    found = output(loaded, cells)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, golden[f"{latent}__emb_all"], rtol=0, atol=2e-6)


def test_an_imported_checkpoint_gives_the_identical_embedding(
    cells: Cells, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from scdrugmap.weights import import_weights
    from scdrugmap_plugin_cellplm import SPEC

    from .conftest import CHECKPOINTS

    for latent, variant in CHECKPOINTS.items():
        target = tmp_path_factory.mktemp("weights") / latent
        import_weights(SPEC, FOLDER, variant=variant, output=target)
        np.testing.assert_array_equal(
            output(original(latent, target), cells), output(original(latent), cells)
        )
