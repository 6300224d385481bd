"""Tests of the predictor file: what it holds, that it repeats, and that nothing foreign gets in."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError, PluginError, UsageError, WeightsError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.model.load import load_model
from scdrugmap.registry import get_registry
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.card import model_card
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.record import Threshold
from scdrugmap.train.state import dump_state, load_state
from scdrugmap.train.tensors import dump_tensors, load_tensors
from scdrugmap.train.train import train_predictor


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cohort.h5ad"
    adata = synthetic_adata(96, 300)
    adata.obs["drug"] = "erlotinib"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def splits(path: Path) -> pd.DataFrame:
    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    return make_split(design, folds=2).table


def train(path: Path, splits: pd.DataFrame, **options: Any) -> Predictor:
    with open_cells(path) as cells:
        return train_predictor([cells], splits, fold=0, quiet=True, **options)


@pytest.fixture(scope="module")
def estimator(path: Path, splits: pd.DataFrame) -> Predictor:
    return train(path, splits, estimator="pca-logreg")


@pytest.fixture
def frozen(path: Path, splits: pd.DataFrame) -> Predictor:
    return train(path, splits, model=load_model("randproj", seed=5))


@pytest.fixture
def saved(estimator: Predictor, tmp_path: Path) -> Path:
    estimator.save(tmp_path / "predictor.zip")
    return tmp_path / "predictor.zip"


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, changed: dict[str, bytes | None]) -> None:
    """Replace or (None) leave out members of a zip file."""
    content = {**members(path), **changed}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def edit(path: Path, **fields: Any) -> None:
    info = json.loads(members(path)["predictor.json"])
    info.update(fields)
    rewrite(path, {"predictor.json": json.dumps(info).encode()})


def test_file_holds_what_was_learnt_and_no_more(saved: Path) -> None:
    assert sorted(members(saved)) == [
        "README.md",
        "estimator.skops",
        "predictor.json",
        "reference.safetensors",
    ]


def test_file_of_a_model_holds_the_head_and_no_weights(frozen: Predictor, tmp_path: Path) -> None:
    frozen.save(tmp_path / "predictor.zip")
    content = members(tmp_path / "predictor.zip")
    assert "head.safetensors" in content
    assert "estimator.skops" not in content
    assert sum(map(len, content.values())) < 200_000


def test_file_names_no_cell_and_no_path(saved: Path, path: Path) -> None:
    content = b"".join(members(saved).values())
    assert b"cell_0000" not in content
    assert str(path.parent).encode() not in content


def test_file_has_no_times_in_it(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_predictor_comes_back_from_its_file(saved: Path, estimator: Predictor, path: Path) -> None:
    loaded = Predictor.load(saved)
    assert loaded.info == estimator.info
    with open_cells(path) as cells:
        pd.testing.assert_frame_equal(
            predict_cells(loaded, cells, quiet=True).cells,
            predict_cells(estimator, cells, quiet=True).cells,
        )


def test_predictor_of_a_model_comes_back_from_its_file(
    frozen: Predictor, path: Path, tmp_path: Path
) -> None:
    frozen.save(tmp_path / "predictor.zip")
    loaded = Predictor.load(tmp_path / "predictor.zip")
    with open_cells(path) as cells:
        pd.testing.assert_frame_equal(
            predict_cells(loaded, cells, quiet=True).cells,
            predict_cells(frozen, cells, quiet=True).cells,
        )


def test_existing_file_is_not_replaced_unasked(saved: Path, estimator: Predictor) -> None:
    before = saved.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        estimator.save(saved)
    estimator.save(saved, overwrite=True)
    assert saved.read_bytes() == before


def test_self_test_repeats_what_training_saw(saved: Path, frozen: Predictor) -> None:
    loaded = Predictor.load(saved)
    assert len(loaded.info.self_test.p_sensitive) == 8
    assert len(set(loaded.info.self_test.p_sensitive)) > 1
    assert loaded.self_test() < 1e-6
    assert len(set(frozen.info.self_test.tokens)) == 8
    assert frozen.self_test() < 1e-6


def test_drift_of_a_probability_stops(saved: Path) -> None:
    test = json.loads(members(saved)["predictor.json"])["self_test"]
    test["p_sensitive"][2] += 0.002 if test["p_sensitive"][2] < 0.5 else -0.002
    edit(saved, self_test=test)
    with pytest.raises(PluginError, match=r"differs by 0\.002 .* \(at most 0\.001\)") as caught:
        Predictor.load(saved).scorer()
    assert "train it again" in caught.value.hint


def test_small_drift_of_a_probability_warns(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = json.loads(members(saved)["predictor.json"])["self_test"]
    test["p_sensitive"][2] += 1e-4 if test["p_sensitive"][2] < 0.5 else -1e-4
    edit(saved, self_test=test)
    Predictor.load(saved).scorer()
    assert "Warning: p_sensitive of the self-test differs by 0.0001" in capsys.readouterr().err


def test_other_tokens_stop(frozen: Predictor, tmp_path: Path) -> None:
    target = tmp_path / "predictor.zip"
    frozen.save(target)
    test = json.loads(members(target)["predictor.json"])["self_test"]
    test["tokens"][0] = "0" * 64
    edit(target, self_test=test)
    with pytest.raises(PluginError, match="1 of 8 synthetic cells have other tokens"):
        Predictor.load(target).scorer()


def test_changed_state_is_noticed(saved: Path) -> None:
    state = load_state(members(saved)["estimator.skops"], "state")
    state["weight"] = state["weight"] * 2
    rewrite(saved, {"estimator.skops": dump_state(state)})
    with pytest.raises(PluginError, match="the self-test of this pca-logreg predictor fails"):
        Predictor.load(saved).scorer()


def test_changed_head_is_noticed(frozen: Predictor, tmp_path: Path) -> None:
    frozen.save(tmp_path / "predictor.zip")
    tensors = load_tensors(frozen.files["head.safetensors"], "head")
    tensors["bias"] = tensors["bias"] + 1
    rewrite(tmp_path / "predictor.zip", {"head.safetensors": dump_tensors(tensors)})
    with pytest.raises(PluginError, match="the self-test of this randproj predictor fails"):
        Predictor.load(tmp_path / "predictor.zip").scorer()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("numerics", 2, "gives other numbers"),
        ("contract", 9, "speaks contract 9"),
        ("name", "hvg-forest", "there is no estimator named 'hvg-forest'"),
        ("options", {"trees": 3}, "does not know the predictor's options: trees"),
    ],
)
def test_other_version_of_the_estimator_stops(
    saved: Path, field: str, value: object, message: str
) -> None:
    edit(saved, **{field: value})
    with pytest.raises(PluginError, match=message):
        Predictor.load(saved).scorer()


def test_other_weights_stop(frozen: Predictor, tmp_path: Path) -> None:
    target = tmp_path / "predictor.zip"
    frozen.save(target)
    weights = json.loads(members(target)["predictor.json"])["weights"]
    edit(target, weights={**weights, "source": "published", "digest": "f" * 64, "label": "big"})
    with pytest.raises(WeightsError, match="was trained on big") as caught:
        Predictor.load(target).scorer()
    assert "--weights" in caught.value.hint


def test_training_cells_are_known_by_content(
    estimator: Predictor, path: Path, splits: pd.DataFrame
) -> None:
    with open_cells(path) as cells:
        known = estimator.is_training_cell(cells.hashes())
        trained = splits[(splits["fold"] == 0) & (splits["role"] == "train")]["cell"]
        assert set(cells.names[known]) == set(trained)


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        Predictor.load(tmp_path / "none.zip")
    assert "scdrugmap train" in caught.value.hint
    with pytest.raises(UsageError, match="is no file"):
        Predictor.load(tmp_path)


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="damaged or no zip file"):
        Predictor.load(tmp_path / "p.zip")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"predictor\.zip is damaged"):
        Predictor.load(saved)


def test_flipped_bits_are_refused_or_change_nothing(saved: Path, estimator: Predictor) -> None:
    data = saved.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        place, bit = int(random.integers(len(data))), int(random.integers(8))
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        saved.write_bytes(damaged)
        try:
            loaded = Predictor.load(saved)
        except DataError:
            refused += 1
        else:
            assert loaded.files == estimator.files
            assert loaded.info == estimator.info
    assert refused > 150


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/passwd", "weights.pkl", "model.safetensors", "a\\b"]
)
def test_file_that_does_not_belong_there_is_refused(saved: Path, name: str) -> None:
    rewrite(saved, {name: b"x"})
    with pytest.raises(DataError, match="does not belong there"):
        Predictor.load(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_file_that_occurs_twice_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("predictor.json", b"{}")
    with pytest.raises(DataError, match="some twice"):
        Predictor.load(saved)


def test_zip_bomb_is_refused_unread(saved: Path) -> None:
    rewrite(saved, {"README.md": b"\0" * (600 << 20)})
    assert saved.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="unpacks to"):
        Predictor.load(saved)


@pytest.mark.parametrize("name", ["predictor.json", "estimator.skops", "reference.safetensors"])
def test_missing_member_is_named(saved: Path, name: str) -> None:
    rewrite(saved, {name: None})
    with pytest.raises(DataError, match=f"damaged: {name} is missing"):
        Predictor.load(saved)


def test_unknown_field_is_refused(saved: Path) -> None:
    edit(saved, run_me="os.system('true')")
    with pytest.raises(DataError, match="run_me: Extra inputs are not permitted"):
        Predictor.load(saved)


def test_later_format_is_refused(saved: Path) -> None:
    edit(saved, format=2)
    with pytest.raises(DataError, match="format") as caught:
        Predictor.load(saved)
    assert "later version" in caught.value.hint


def test_record_that_is_no_json_is_refused(saved: Path) -> None:
    rewrite(saved, {"predictor.json": b"{" * 100})
    with pytest.raises(DataError, match=r"predictor\.json cannot be used"):
        Predictor.load(saved)


def test_reference_of_other_shape_is_refused(saved: Path) -> None:
    rewrite(saved, {"reference.safetensors": dump_tensors({"self_test": np.ones((8, 3), "f4")})})
    with pytest.raises(DataError, match=r"reference\.safetensors is damaged"):
        Predictor.load(saved)


def skops_with(tree: Any, files: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps(tree))
        for name, data in (files or {}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Witness:
    """Says whether it was ever made."""

    made = False

    def __init__(self) -> None:
        Witness.made = True


def test_state_with_a_foreign_type_is_refused_and_not_made(saved: Path) -> None:
    import skops.io

    Witness.made = False
    rewrite(saved, {"estimator.skops": skops.io.dumps({"weight": Witness()})})
    Witness.made = False
    with pytest.raises(DataError, match="which no predictor needs") as caught:
        Predictor.load(saved).scorer()
    assert not Witness.made
    assert "source you do not trust" in caught.value.hint


@pytest.mark.parametrize("value", [np.array(["a", 1], object), {"nested": print}, np.float64])
def test_state_of_anything_but_arrays_numbers_and_text_is_refused(value: object) -> None:
    import skops.io

    with pytest.raises(DataError):
        load_state(skops.io.dumps({"x": value}), "estimator.skops")


def test_estimator_of_scikit_learn_in_a_state_is_refused() -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(DataError, match="LogisticRegression"):
        load_state(skops.io.dumps({"model": LogisticRegression()}), "estimator.skops")


def test_state_that_cannot_be_stored_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="state 'x' is of kind"):
        dump_state({"x": print})


def test_array_that_declares_more_than_it_has_is_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    )
    node = {"__loader__": "NdArrayNode", "__module__": "numpy", "__class__": "ndarray"}
    tree = {
        "__loader__": "DictNode",
        "__module__": "builtins",
        "__class__": "dict",
        "key_types": {
            "__loader__": "ListNode",
            "__module__": "builtins",
            "__class__": "list",
            "content": [],
        },
        "content": {"x": {**node, "type": "numpy", "file": "1.npy"}},
        "protocol": 2,
    }
    with pytest.raises(DataError, match="size is not what it says"):
        load_state(skops_with(tree, {"1.npy": header.getvalue()}), "estimator.skops")


@pytest.mark.parametrize("tree", [[], {}, {"__loader__": 3}, "text", {"__loader__": "DictNode"}])
def test_state_with_a_broken_schema_is_refused(tree: Any) -> None:
    with pytest.raises(DataError):
        load_state(skops_with(tree), "estimator.skops")


def test_state_of_another_estimator_is_refused(saved: Path) -> None:
    rewrite(saved, {"estimator.skops": dump_state({"share": 0.5, "seed": 1})})
    with pytest.raises(DataError, match=r"estimator\.skops is not the state of pca-logreg"):
        Predictor.load(saved).scorer()


def test_states_with_equal_content_are_equal_bytes() -> None:
    first = dump_state({"a": np.arange(3.0), "b": np.array(["x", "yy"], object), "c": 1})
    second = dump_state({"c": 1, "b": np.array(["x", "yy"]), "a": np.arange(6.0)[:3]})
    assert load_state(first, "s")["b"].tolist() == ["x", "yy"]
    assert load_state(first, "s").keys() == load_state(second, "s").keys()
    assert first == dump_state({"a": np.arange(3.0), "b": np.array(["x", "yy"]), "c": 1})


def test_card_says_what_a_reader_must_know(estimator: Predictor) -> None:
    info = estimator.info.model_copy(
        update={"threshold": Threshold(value=0.25, source="validation", n_validation=9)}
    )
    card = model_card(info)
    assert "research only" in card
    assert "- 48 cells of 4 groups, 50% sensitive; values: counts" in card
    assert "- drug: erlotinib" in card
    assert "sensitive from p = 0.25 on (validation)" in card


def test_card_keeps_names_of_files_harmless(estimator: Predictor) -> None:
    info = estimator.info.model_copy(update={"drug": ("<script>alert(1)</script>\n# head",)})
    card = model_card(info)
    assert "<script>" not in card.replace("\\<", "")
    assert "\n# head" not in card


needs_scgpt = pytest.mark.skipif(
    "scgpt" not in get_registry().models, reason="the scgpt plugin is not installed"
)


def scgpt(path: Path, splits: pd.DataFrame, target: Path, seed: int) -> Predictor:
    """Train on a tiny untrained scGPT and save."""
    settings = {"variant": "tiny", "max_length": "64"}
    loaded = load_model("scgpt", settings=settings, weights="random", seed=seed)
    predictor = train(path, splits, model=loaded, min_genes=100)
    predictor.save(target)
    return predictor


@needs_scgpt
def test_random_weights_are_made_again_from_their_seed(
    path: Path, splits: pd.DataFrame, tmp_path: Path
) -> None:
    predictor = scgpt(path, splits, tmp_path / "p.zip", seed=5)
    assert predictor.info.weights is not None
    assert "untrained" in predictor.info.weights.label
    loaded = Predictor.load(tmp_path / "p.zip")
    loaded.scorer()
    assert loaded.self_test() < 1e-6
    edit(tmp_path / "p.zip", embedding_seed=6)
    with pytest.raises(PluginError, match="self-test"):
        Predictor.load(tmp_path / "p.zip").scorer()
    with pytest.raises(UsageError, match="trained on random weights"):
        Predictor.load(tmp_path / "p.zip").scorer(weights=tmp_path)


@needs_scgpt
def test_missing_weights_say_where_to_get_them(
    path: Path, splits: pd.DataFrame, tmp_path: Path
) -> None:
    predictor = scgpt(path, splits, tmp_path / "p.zip", seed=0)
    assert predictor.info.weights is not None
    weights = predictor.info.weights.model_dump(mode="json")
    edit(
        tmp_path / "p.zip",
        weights={**weights, "source": "published", "digest": "f" * 64},
        options={**predictor.info.options, "variant": ""},
    )
    with pytest.raises(WeightsError) as caught:
        Predictor.load(tmp_path / "p.zip").scorer()
    assert get_registry().model("scgpt").weights[0].homepage in caught.value.hint
    assert "scdrugmap weights" in caught.value.hint or "--weights" in caught.value.hint
