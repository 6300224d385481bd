"""Published weights that are damaged, hostile or of something else: one line, nothing run.

Every case goes through the command line, `verify` and `import`: exit code 4, one line that says
what and where, no traceback, no code run, nothing written.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bad_inputs.spoiled_weights import (
    CHECKPOINT,
    DEEP_LISTS,
    DEEP_TUPLES,
    TENSORS,
    Runs,
    Spoil,
    changed_json,
    compressed,
    cut,
    flipped_header,
    legacy_deep_tuples,
    link_out,
    pipe,
    replaced,
    saved,
    spoilt_value,
    twin,
    whole_model,
    with_pickle,
    written,
)

NORM = "value_encoder.norm.weight"

CASES: dict[str, tuple[Spoil, str]] = {
    "missing file": (lambda folder: (folder / TENSORS).unlink(), "best_model.pt is missing"),
    "missing key": (
        saved(lambda old: {k: v for k, v in old.items() if k != "encoder.enc_norm.weight"}),
        "1 tensors are missing: gene_encoder.norm.weight",
    ),
    "extra key": (replaced(surprise__weight=torch.ones(2)), "this model: surprise.weight"),
    "key in another case": (
        saved(lambda old: {**old, "Value_Encoder.norm.weight": old[NORM]}),
        "this model: Value_Encoder.norm.weight",
    ),
    "wrong shape": (
        replaced(value_encoder__norm__weight=torch.ones(31)),
        "value_encoder.norm.weight is (31,), expected (32,)",
    ),
    "several wrong shapes": (
        replaced(
            value_encoder__norm__weight=torch.ones(31), value_encoder__norm__bias=torch.ones(1, 32)
        ),
        (
            "2 tensors do not fit: value_encoder.norm.weight is (31,), expected (32,), "
            "value_encoder.norm.bias is (1, 32), expected (32,)"
        ),
    ),
    "scalar for a vector": (
        replaced(value_encoder__norm__bias=torch.tensor(0.5)),
        "value_encoder.norm.bias is (), expected (32,)",
    ),
    "fused rows that are no three parts": (
        replaced(transformer_encoder__layers__0__self_attn__Wqkv__bias=torch.ones(95)),
        "has 95 rows, not 3 equal parts",
    ),
    "integers for fractions": (
        replaced(value_encoder__norm__weight=torch.ones(32, dtype=torch.int32)),
        "value_encoder.norm.weight is torch.int32, expected torch.float32",
    ),
    "complex for fractions": (
        replaced(value_encoder__norm__weight=torch.ones(32, dtype=torch.complex64)),
        "value_encoder.norm.weight is torch.complex64, expected torch.float32",
    ),
    "not a tensor": (replaced(value_encoder__norm__weight=3), "is a int, not a tensor"),
    "NaN": (spoilt_value(np.nan), "value_encoder.linear2.weight holds NaN"),
    "infinite": (spoilt_value(np.inf), "value_encoder.linear2.weight holds NaN or infinite"),
    "infinite once in 32 bits": (
        spoilt_value(1e300, torch.float64),
        "value_encoder.linear2.weight holds NaN or infinite values",
    ),
    "NaN in 8 bits": (
        replaced(
            value_encoder__norm__weight=torch.full((32,), torch.nan).to(torch.float8_e4m3fn),
        ),
        "value_encoder.norm.weight holds NaN or infinite values",
    ),
    "pickle payload": (
        saved(lambda old: {**old, "encoder.enc_norm.weight": Runs()}),
        "nothing in it was run",
    ),
    "old pickle payload": (
        lambda folder: (folder / TENSORS).write_bytes(pickle.dumps(Runs())) and None,
        "nothing in it was run",
    ),
    "deep tuples": (with_pickle(DEEP_TUPLES), "more than 64 levels of tuples"),
    "deep tuples in the old format": (legacy_deep_tuples, "more than 64 levels of tuples"),
    "deep lists": (with_pickle(DEEP_LISTS), "best_model.pt cannot be read"),
    "whole saved model": (whole_model, "holds more than tensors"),
    "expanded tensor": (
        replaced(encoder__enc_norm__weight=torch.zeros(1).expand(10**9)),
        "encoder.enc_norm.weight claims 4,000,000,000 bytes, 4 are stored",
    ),
    "many views of one tensor": (
        saved(lambda old: {f"{n}": old["encoder.embedding.weight"] for n in range(100)}),
        "its tensors claim",
    ),
    "sparse tensor": (
        replaced(encoder__enc_norm__weight=torch.ones(32).to_sparse()),
        "encoder.enc_norm.weight is no plain tensor",
    ),
    "tensor without values": (
        replaced(encoder__enc_norm__weight=torch.empty(32, device="meta")),
        "encoder.enc_norm.weight is no plain tensor",
    ),
    "list of tensors": (saved(lambda old: list(old.values())), "holds a list, not tensors"),
    "tensors of another model": (
        saved(lambda _: {"to_out.fc1.weight": torch.ones(2, 2), "norm.weight": torch.ones(2)}),
        "2 tensors are not part of this model: to_out.fc1.weight, norm.weight",
    ),
    "compressed archive": (compressed, "is a compressed archive"),
    "truncated": (cut(TENSORS, 0.5), "best_model.pt"),
    "half a header": (cut(TENSORS, 0.0001), "best_model.pt"),
    "damaged header": (flipped_header, "best_model.pt"),
    "empty": (written(TENSORS, b""), "best_model.pt cannot be read (0 bytes)"),
    "web page": (written(TENSORS, "<html>sign in</html>"), "best_model.pt"),
    "pipe": (pipe(TENSORS), "best_model.pt is missing"),
    "link into another user's folder": (
        link_out(TENSORS),
        "best_model.pt leads out of the folder",
    ),
    "link of the vocabulary": (link_out("vocab.json"), "vocab.json leads out of the folder"),
    "names that differ in case only": (
        twin("vocab.json", "Vocab.JSON"),
        "Vocab.JSON and vocab.json differ in case only",
    ),
    "vocabulary of another length": (
        changed_json("vocab.json", lambda old: {**old, "ONE": len(old)}),
        "has 357 rows, but vocab.json makes 358 tokens",
    ),
    "vocabulary with a gap": (
        changed_json("vocab.json", lambda old: {k: v + (v > 5) for k, v in old.items()}),
        "the token ids are not 0 to 356, each once",
    ),
    "vocabulary that names a gene twice": (
        written("vocab.json", '{"TP53": 0, "TP53": 1}'),
        "vocab.json is no proper JSON: 'TP53' occurs twice",
    ),
    "vocabulary cut off": (cut("vocab.json", 0.7), "vocab.json is no proper JSON"),
    "vocabulary of bytes": (written("vocab.json", b"\xff\xfe{}"), "vocab.json is no UTF-8 text"),
    "deeply nested": (written("vocab.json", "[" * 200_000), "vocab.json is no proper JSON"),
    "sizes that are no numbers": (
        written("args.json", '{"embsize": NaN}'),
        "args.json is no proper JSON: NaN is no JSON number",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


@pytest.mark.parametrize("name", CASES)
def test_bad_published_weights(
    cli: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    spoil, message = CASES[name]
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "imported"
    for verb in (("verify", "scgpt", folder), ("import", "scgpt", folder, "-o", output)):
        done = cli("weights", *verb)
        assert done.code == 4, done.err
        assert message in done.err
        assert done.err.startswith("Error: ")
        assert "Traceback" not in done.err
        assert len(done.err.splitlines()) <= 2
        assert done.out == ""
        assert not output.exists()
        assert not (tmp_path / "ran").exists()


def test_the_payload_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Runs()))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("width", [10**13, 10**30])
def test_sizes_that_fill_the_memory_are_a_lack_of_memory(
    cli: Callable[..., Any], folder: Path, width: int
) -> None:
    changed_json("args.json", lambda old: {**old, "embsize": width})(folder)
    done = cli("weights", "verify", "scgpt", folder)
    assert done.code == 5
    assert "the network that it describes does not fit into memory" in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_folder_that_is_not_named_in_unicode_is_read(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / os.fsdecode(b"weights\xff"))
    done = cli("weights", "import", "scgpt", folder, "-o", tmp_path / "imported")
    assert done.code == 0, done.err
