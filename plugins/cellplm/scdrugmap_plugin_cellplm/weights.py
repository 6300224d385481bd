"""Published CellPLM checkpoints (``NAME.config.json``, ``NAME.best.ckpt``) to our names."""

from __future__ import annotations

from typing import Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap.plugin import Variant
from scdrugmap_plugin_cellplm import MIXTURE, PLAIN, PUBLISHED, files
from scdrugmap_plugin_cellplm.model import NORM_GROUPS

COUNTS = {
    # field of the configuration: ours
    "enc_hid": "dim",
    "enc_head": "n_heads",
    "enc_layers": "n_layers",
    "post_latent_dim": "out_dim",
    "num_clusters": "n_clusters",
}
DROPOUT = "model_dropout"
DEFAULTS = {"enc_head": 8, "num_clusters": 16}
"""What the original's code takes where the configuration is silent."""

# What this network cannot do without, and what it cannot do. Where a field is missing, the
# original's default is the value here.
REQUIRED = {
    "enc_mod": "flowformer",
    "norm": "groupnorm",
    "cat_pe": False,
    "input_covariate": False,
    "dsbn": False,
}

_LAYER, _OURS = r"encoder\.layers\.(\d+)\.", r"layers.\1."
_LATENT = r"latent\.layers\.1\."
_PARTS = {"query": "q", "key": "k", "value": "v", "out": "out"}

KEYS = KeyMap(
    [
        (r"embedder\.feat_enc\.emb", "embedder.genes.embedding.weight"),
        (r"embedder\.extra_linear\.0\.(weight|bias)", r"embedder.linear.\1"),
        (r"embedder\.extra_linear\.3\.(weight|bias)", r"embedder.norm.\1"),
        *(
            (
                rf"{_LAYER}self_attn\.{theirs}_projection\.(weight|bias)",
                rf"{_OURS}attention.{ours}_proj.\2",
            )
            for theirs, ours in _PARTS.items()
        ),
        (_LAYER + r"_ff_block\.0\.(weight|bias)", _OURS + r"feed_forward.linear1.\2"),
        (_LAYER + r"_ff_block\.3\.(weight|bias)", _OURS + r"feed_forward.linear2.\2"),
        (_LAYER + r"(norm1|norm2)\.(weight|bias)", _OURS + r"\2.\3"),
        (r"pre_latent_norm\.norm\.(weight|bias)", r"norm.\1"),
        (_LATENT + r"hid_2mu\.(weight|bias)", r"latent.\1"),
        (_LATENT + r"inference\.inference_qyx\.0\.logits\.(weight|bias)", r"latent.logits.\1"),
        (_LATENT + r"inference\.inference_qzyx\.0\.(weight|bias)", r"latent.joint.\1"),
        (_LATENT + r"inference\.inference_qzyx\.2\.mu\.(weight|bias)", r"latent.mean.\1"),
        # Spreads of the latent space, and a norm and positions that nothing reads.
        (_LATENT + r"(?:hid_2sigma|inference\.inference_qzyx\.2\.var)\..*", None),
        (_LATENT + r"inference\.(?:y_mu|y_var)\..*", None),
        (r"embedder\.(?:norm0|pe_enc)\..*", None),
        # The rest, decoder and losses of pre-training, comes after the embedding; what else the
        # published files hold is not known.
        (r"(?!(?:embedder|encoder|pre_latent_norm|latent)\.).*", None),
    ]
)


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a checkpoint as the authors ship it.

    Raises
    ------
    WeightsError
        A file is missing or damaged, does not fit the other or the architecture, or is of another
        checkpoint.
    """
    config_name, tensors_name = files(variant.name)
    _require_checkpoint(folder, config_name, variant.name)
    config, genes = _config(folder, config_name, variant)
    source = f"{folder}/{tensors_name}"
    content = folder.torch(tensors_name)
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(
            f"{source} holds no model_state_dict", hint="is this the file of another model?"
        )
    published = {str(key).removeprefix("module."): value for key, value in state.items()}
    if len(published) != len(state):
        raise WeightsError(f"{source}: some tensors are there with and without 'module.'")
    tensors = KEYS.apply(published, source)
    table = tensors.get("embedder.genes.embedding.weight")
    if table is not None and len(table) != len(genes):
        raise WeightsError(
            f"{source}: embedder.feat_enc.emb has {len(table):,} rows, but {config_name} lists "
            f"{len(genes):,} genes",
            hint="both files must be of the same checkpoint",
        )
    return Weights(config, genes, tensors, source)


def _require_checkpoint(folder: PublishedFolder, config_name: str, name: str) -> None:
    """Name the option that reads the folder if it holds the other checkpoint."""
    there = set(folder.names("*.config.json"))
    if config_name in there:
        return
    for other in PUBLISHED:
        if files(other)[0] in there:
            raise WeightsError(
                f"{folder} holds {other}, not {name}", hint=f"choose it: variant={other}"
            )


def _config(
    folder: PublishedFolder, name: str, variant: Variant
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the sizes, and the genes with their rows of the table."""
    given = folder.json(name)
    where = f"{folder}/{name}"
    if not isinstance(given, dict):
        raise WeightsError(f"{where} holds a {type(given).__name__}, not an object")
    for field, value in REQUIRED.items():
        if given.get(field, value) != value:
            raise WeightsError(f"{where}: {field} is {given[field]!r}; only {value!r} is supported")
    values = {**DEFAULTS, **given}
    missing = [f for f in (*COUNTS, DROPOUT, "latent_mod", "gene_list") if f not in values]
    if missing:
        raise WeightsError(f"{where} does not say {', '.join(missing)}")
    for field in COUNTS:
        if type(values[field]) is not int or values[field] < 1:
            raise WeightsError(f"{where}: {field} is {values[field]!r}, not a positive number")
    dropout = values[DROPOUT]
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise WeightsError(f"{where}: {DROPOUT} is {dropout!r}, not a number from 0 to 1")
    for divisor in (values["enc_head"], NORM_GROUPS):
        if values["enc_hid"] % divisor:
            raise WeightsError(
                f"{where}: enc_hid {values['enc_hid']} cannot be split into {divisor} parts"
            )
    latent = variant.sizes["latent"]
    if values["latent_mod"] != latent:
        raise WeightsError(
            f"{where}: latent_mod is {values['latent_mod']!r}; {variant.name} has {latent!r}",
            hint=f"checkpoints are {MIXTURE} (with clusters) or {PLAIN}: was a file renamed?",
        )
    sizes = {ours: values[field] for field, ours in COUNTS.items()}
    return {**sizes, "latent": latent, "dropout": dropout}, _genes(values["gene_list"], where)


def _genes(names: Any, where: str) -> dict[str, int]:
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise WeightsError(f"{where}: gene_list is no list of names")
    genes = {name: row for row, name in enumerate(names)}
    if len(genes) != len(names):
        raise WeightsError(f"{where}: gene_list names {len(names) - len(genes)} genes twice")
    return genes
