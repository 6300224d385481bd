"""Weights are found, imported, pinned and verified; both layouts give the same model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scdrugmap import manifest, weights
from scdrugmap.errors import PluginError, ResourceError, UsageError, WeightsError
from scdrugmap.manifest import file_record, read_manifest
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder
from scdrugmap.registry import get_registry
from scdrugmap.weights import (
    find_weights,
    import_weights,
    open_weights,
    places,
    state_of_weights,
    weight_set,
)
from scdrugmap_plugin_scgpt import SPEC

CHECKPOINT = Path(__file__).parents[1] / "plugins/scgpt/tests/golden/checkpoint"
RANDPROJ = get_registry().model("randproj")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """An imported folder to spoil."""
    return import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")


def output(folder: Path) -> torch.Tensor:
    module = load_model("scgpt", weights=folder).model.module
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(0, 357, (5, 40)))
    values = torch.from_numpy(random.integers(1, 51, (5, 40)).astype(np.float32))
    with torch.inference_mode():
        return module({"id": ids, "value": values})


def train_further(folder: Path) -> None:
    """Change the tensors of a published folder a little."""
    tensors = torch.load(folder / "best_model.pt", weights_only=True)
    tensors["value_encoder.norm.bias"] += 1
    torch.save(tensors, folder / "best_model.pt")


def test_a_given_folder_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDRUGMAP_WEIGHTS", str(folder.parent))
    assert find_weights(SPEC, folder) == folder
    assert find_weights(SPEC, "random") is None


def test_the_weights_folder_is_looked_at_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, cached = tmp_path / "mine", tmp_path / "cache"
    monkeypatch.setenv("SCDRUGMAP_WEIGHTS", str(mine))
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(cached))
    first, second = places(SPEC, "brain")
    assert first == mine / "scgpt" / "brain"
    assert second == cached / "weights" / "scgpt" / "brain"
    shutil.copytree(CHECKPOINT, second)
    first.mkdir(parents=True)
    assert find_weights(SPEC, variant="brain") == second  # an empty folder holds no weights
    shutil.copytree(CHECKPOINT, first, dirs_exist_ok=True)
    assert find_weights(SPEC, variant="brain") == first


def test_without_home_and_variables_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCDRUGMAP_WEIGHTS", "SCDRUGMAP_CACHE"):
        monkeypatch.delenv(name)

    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    assert places(SPEC, "brain") == []
    with pytest.raises(UsageError, match="no folder to keep weights in"):
        import_weights(SPEC, CHECKPOINT)


def test_a_model_that_needs_no_weights_ignores_them(folder: Path) -> None:
    assert find_weights(RANDPROJ, folder) is None
    assert find_weights(RANDPROJ) is None


def test_a_variant_that_is_not_published_has_no_weights(folder: Path) -> None:
    for given in (None, folder):
        with pytest.raises(UsageError, match="variant tiny of scgpt is not published"):
            find_weights(SPEC, given, variant="tiny")
    assert find_weights(SPEC, "random", variant="tiny") is None


def test_weights_that_are_nowhere_are_an_error_that_says_how_to_get_them() -> None:
    with pytest.raises(WeightsError, match="scgpt: no weights of ") as caught:
        find_weights(SPEC)
    assert "scdrugmap weights import scgpt FOLDER" in caught.value.hint


def test_random_and_replaced_tensors_are_untrained(folder: Path) -> None:
    _, record = open_weights(SPEC, folder)
    assert not record.untrained
    assert replace(record, randomize=1).untrained
    assert weights.RANDOM_WEIGHTS.untrained
    assert not weights.NO_WEIGHTS.untrained


@pytest.mark.parametrize(("name", "message"), [("gone", "is not there"), ("file", "is no folder")])
def test_given_weights_that_are_no_folder_are_an_error(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UsageError, match=message):
        find_weights(SPEC, tmp_path / name)


def test_published_files_are_remembered_with_their_hashes(folder: Path) -> None:
    _, record = open_weights(SPEC, folder)
    assert record.files == {
        name: file_record(folder / name).sha256
        for name in ("args.json", "best_model.pt", "vocab.json")
    }
    assert record.label.startswith("checkpoint (")
    assert record.digest[:12] in record.label


def test_files_that_differ_from_what_others_have_seen_are_a_notice_not_an_error(
    folder: Path,
) -> None:
    _, record = open_weights(SPEC, folder)
    assert len(record.notices) == 1
    assert (
        "args.json, vocab.json, best_model.pt: not as others have seen whole-human"
        in (record.notices[0])
    )
    assert open_weights(SPEC, folder, variant="brain")[1].notices == ()  # nobody recorded those


def test_weights_that_may_not_be_used_commercially_say_so(folder: Path) -> None:
    item = SPEC.weights[2].model_copy(update={"commercial_use": False, "licence": "CC BY-NC 4.0"})
    spec = SPEC.model_copy(update={"weights": (item,)})
    assert weight_set(spec, "brain") is weight_set(spec, "whole-human")
    _, record = open_weights(spec, folder, variant="brain")
    assert record.commercial_use is False
    assert record.notices == ("weights of checkpoint: not for commercial use (CC BY-NC 4.0)",)


def test_digest_depends_on_content_and_variant_but_not_on_place(folder: Path) -> None:
    digest = open_weights(SPEC, folder)[1].digest
    assert digest == open_weights(SPEC, CHECKPOINT)[1].digest
    assert digest != open_weights(SPEC, folder, variant="brain")[1].digest
    train_further(folder)
    assert digest != open_weights(SPEC, folder)[1].digest


def test_a_file_is_hashed_once_per_process_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashed = tmp_path / "file", []
    real = hashlib.file_digest

    def counted(*given: Any) -> Any:
        hashed.append(path)
        return real(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    path.write_text("abc", "utf-8")
    assert file_record(path) == file_record(path)
    assert len(hashed) == 1
    path.write_text("abcd", "utf-8")
    assert file_record(path).n_bytes == 4
    manifest.forget_hashes()
    file_record(path)
    assert len(hashed) == 3


def test_imported_weights_give_identical_embeddings(imported: Path) -> None:
    assert torch.equal(output(imported), output(CHECKPOINT))


def test_both_layouts_give_the_same_content(imported: Path) -> None:
    ours, record = open_weights(SPEC, imported)
    published, other = open_weights(SPEC, CHECKPOINT)
    assert ours.config == published.config
    assert list(ours.vocabulary.items()) == list(published.vocabulary.items())
    assert ours.tensors.keys() == published.tensors.keys()
    assert record.source == "imported"
    assert record.digest == other.digest
    assert record.files == other.files


def test_an_import_records_where_it_came_from(imported: Path) -> None:
    found = read_manifest(imported)
    assert sorted(path.name for path in imported.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "vocabulary.json",
    ]
    assert (found.model, found.name, found.variant) == ("scgpt", "whole-human", "whole-human")
    assert found.licence == SPEC.weights[0].licence
    assert found.published["best_model.pt"] == file_record(CHECKPOINT / "best_model.pt")
    assert found.files["model.safetensors"] == file_record(imported / "model.safetensors")
    assert found.n_tensors == 41
    assert found.n_parameters == 27_680


def test_an_import_is_found_without_naming_it() -> None:
    target = import_weights(SPEC, CHECKPOINT)
    assert target == find_weights(SPEC) == places(SPEC, "whole-human")[0]
    assert load_model("scgpt").weights.source == "imported"
    assert load_model("scgpt").weights.label.startswith("whole-human (")


def test_importing_the_same_files_again_changes_nothing() -> None:
    target = import_weights(SPEC, CHECKPOINT)
    before = (target / "manifest.json").stat()
    assert import_weights(SPEC, CHECKPOINT) == target
    assert (target / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns


def test_other_files_under_the_same_name_are_an_error_until_told(folder: Path) -> None:
    target = import_weights(SPEC, CHECKPOINT)
    before = output(target)
    train_further(folder)
    with pytest.raises(WeightsError, match=r"best_model\.pt is not what was imported as") as caught:
        import_weights(SPEC, folder)
    assert "--overwrite" in caught.value.hint
    assert torch.equal(output(target), before)
    import_weights(SPEC, folder, overwrite=True)
    assert torch.equal(output(target), output(folder))
    assert [path.name for path in target.parent.iterdir()] == ["whole-human"]


def test_own_weights_are_kept_under_a_name_of_their_own(folder: Path) -> None:
    train_further(folder)
    target = import_weights(SPEC, folder, name="mine")
    assert target == places(SPEC, "mine")[0]
    assert load_model("scgpt", weights=target).weights.label.startswith("mine (")


@pytest.mark.parametrize("content", ["file", "folder"])
def test_an_output_that_is_no_import_is_left_alone(tmp_path: Path, content: str) -> None:
    target = tmp_path / "there"
    if content == "file":
        target.write_text("mine", "utf-8")
    else:
        target.mkdir()
        (target / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="exists and holds no imported weights"):
        import_weights(SPEC, CHECKPOINT, output=target, overwrite=True)
    kept = target if content == "file" else target / "thesis.txt"
    assert kept.read_text("utf-8") == "mine"


def test_an_empty_folder_may_be_the_output(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert import_weights(SPEC, CHECKPOINT, output=tmp_path / "empty") == tmp_path / "empty"
    assert read_manifest(tmp_path / "empty").model == "scgpt"


def test_weights_that_do_not_load_are_not_imported(folder: Path, tmp_path: Path) -> None:
    tensors = torch.load(folder / "best_model.pt", weights_only=True)
    del tensors["encoder.enc_norm.bias"]
    torch.save(tensors, folder / "best_model.pt")
    with pytest.raises(WeightsError, match=r"1 tensors are missing: gene_encoder\.norm\.bias"):
        import_weights(SPEC, folder, output=tmp_path / "imported")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_cannot_be_imported_is_refused(imported: Path) -> None:
    with pytest.raises(UsageError, match="is imported already"):
        import_weights(SPEC, imported)
    with pytest.raises(UsageError, match="tiny of scgpt has no published weights"):
        import_weights(SPEC, CHECKPOINT, variant="tiny")
    with pytest.raises(UsageError, match="of randproj has no published weights"):
        import_weights(RANDPROJ, CHECKPOINT)


def test_a_plugin_without_reader_is_an_error_of_the_plugin(folder: Path) -> None:
    spec = SPEC.model_copy(update={"weights_reader": None})
    with pytest.raises(PluginError, match="names no weights_reader"):
        open_weights(spec, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everywhere")
def test_places_without_permission_are_a_resource_error(folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="permission denied"):
        import_weights(SPEC, CHECKPOINT, output=closed / "a" / "b")
    (folder / "args.json").chmod(0)
    with pytest.raises(ResourceError, match="permission denied"):
        open_weights(SPEC, folder)


def test_an_output_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UsageError, match="a part of its path is no folder"):
        import_weights(SPEC, CHECKPOINT, output=tmp_path / "file" / "weights")


def edited(name: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: change(folder / name)


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def other_tensors(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: tensor + 0 for name, tensor in tensors.items()}, path, {"by": "another"})


def edit_manifest(**fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        content = {**json.loads(path.read_text("utf-8")), **fields}
        path.write_text(json.dumps(content), "utf-8")

    return edit


SPOILT_IMPORTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "one bit": (edited("model.safetensors", flip_bit), "is not the file that was imported"),
    "other tensors": (edited("model.safetensors", other_tensors), "is not the file that was"),
    "edited vocabulary": (
        edited("vocabulary.json", lambda path: path.write_text("{}", "utf-8")),
        "vocabulary.json is not the file that was imported",
    ),
    "missing configuration": (edited("config.json", Path.unlink), "config.json is missing"),
    "another model": (edit_manifest(model="uce"), "holds weights of uce, not of scgpt"),
    "another format": (edit_manifest(format=2), "format: Input should be 1"),
    "a field too many": (edit_manifest(more=1), "more: Extra inputs are not permitted"),
    "files left out": (edit_manifest(files={}), "files: Value error, it names nothing, expected"),
    "no manifest": (
        edited("manifest.json", lambda path: path.write_text("{", "utf-8")),
        "manifest.json is no proper JSON",
    ),
}


@pytest.mark.parametrize("name", SPOILT_IMPORTS)
def test_a_spoilt_import_is_an_error(imported: Path, name: str) -> None:
    spoil, message = SPOILT_IMPORTS[name]
    spoil(imported)
    with pytest.raises(WeightsError, match=message):
        load_model("scgpt", weights=imported)


def test_a_variant_other_than_the_imported_one_is_an_error(imported: Path) -> None:
    with pytest.raises(WeightsError, match="holds whole-human of scgpt, not brain"):
        load_model("scgpt", settings={"variant": "brain"}, weights=imported)
    loaded = load_model("scgpt", settings={"variant": "whole-human"}, weights=imported)
    assert loaded.weights.source == "imported"


def test_state_of_weights_says_what_was_found() -> None:
    before = {row["name"]: row for row in state_of_weights(SPEC)}
    assert before["brain"]["found"] is None
    assert "--variant brain" in before["brain"]["how_to_get"]
    target = import_weights(SPEC, CHECKPOINT, variant="brain")
    after = {row["name"]: row for row in state_of_weights(SPEC)}
    assert after["brain"]["found"] == str(target)
    assert after["brain"]["imported"]
    assert after["whole-human"]["found"] is None


def test_a_login_is_mentioned_where_one_is_needed() -> None:
    item = SPEC.weights[0].model_copy(update={"needs_login": True})
    spec = SPEC.model_copy(update={"weights": (item,)})
    assert "(needs a login there)" in weights.how_to_get(spec)


def test_list_and_show_give_text_and_json(cli: Callable[..., Any]) -> None:
    listed = cli("weights", "list")
    assert listed.code == 0
    assert "whole-human" in listed.out
    rows = json.loads(cli("weights", "list", "scgpt", "--json").out)
    assert [row["name"] for row in rows] == [item.name for item in SPEC.weights]
    shown = cli("weights", "show", "scgpt", "--variant", "brain")
    assert "best_model.pt" in shown.out
    assert "commercial use  not stated" in shown.out
    assert json.loads(cli("weights", "show", "scgpt", "--json").out)["name"] == "whole-human"
    assert cli("weights", "list", "randproj").out == "No installed model needs weights.\n"
    wrong = cli("weights", "list", "scgtp")
    assert wrong.code == 4
    assert "did you mean scgpt?" in wrong.err


def test_import_and_verify_from_the_command_line(cli: Callable[..., Any]) -> None:
    done = cli("weights", "import", "scgpt", CHECKPOINT)
    assert done.code == 0
    target = Path(done.out.strip())
    assert read_manifest(target).model == "scgpt"
    text = cli("weights", "verify", "scgpt", CHECKPOINT)
    assert text.code == 0
    assert "published weights of scgpt, as they should be" in text.out
    assert "354, 354 of them in the gene table" in text.out
    assert "layers.1.norm2.bias" in text.out
    assert "Note: " in text.out
    found = json.loads(cli("weights", "verify", "scgpt", target, "--json").out)
    assert found["layout"] == "imported"
    assert {file["state"] for file in found["files"].values()} == {"as_imported"}
    assert found["n_parameters"] == 27_680
    assert found["dim"] == 32
    assert found["cells"]["least_distance"] > 0
    assert cli("weights", "list").out.count("(imported)") == 1


def test_verify_recognises_files_by_their_recorded_hashes() -> None:
    from scdrugmap.model.verify import verify_weights

    states = {name: file["state"] for name, file in verify_weights(SPEC, CHECKPOINT).files.items()}
    assert set(states.values()) == {"other"}
    files = tuple(
        file.model_copy(update={"sha256": file_record(CHECKPOINT / file.path).sha256})
        for file in SPEC.weights[0].files[:2]
    )
    item = SPEC.weights[0].model_copy(update={"files": files})
    found = verify_weights(SPEC.model_copy(update={"weights": (item,)}), CHECKPOINT)
    states = {name: file["state"] for name, file in found.files.items()}
    assert states == {"args.json": "as_known", "vocab.json": "as_known", "best_model.pt": "unknown"}
    assert found.notices == ()


def test_verify_refuses_weights_that_make_all_cells_equal(folder: Path) -> None:
    from scdrugmap.model.verify import verify_weights

    tensors = torch.load(folder / "best_model.pt", weights_only=True)
    last = "transformer_encoder.layers.1.norm2.weight"
    tensors[last] = torch.zeros_like(tensors[last])
    torch.save(tensors, folder / "best_model.pt")
    with pytest.raises(WeightsError, match="different synthetic cells get the same embedding"):
        verify_weights(SPEC, folder)


def test_verify_refuses_a_vocabulary_of_unknown_names(folder: Path) -> None:
    from scdrugmap.model.verify import verify_weights

    path = folder / "vocab.json"
    vocabulary = json.loads(path.read_text("utf-8"))
    strange = {
        name if name.startswith("<") else f"unknown{token}": token
        for name, token in vocabulary.items()
    }
    path.write_text(json.dumps(strange), "utf-8")
    with pytest.raises(WeightsError, match="the gene table knows 0 genes of the vocabulary"):
        verify_weights(SPEC, folder)


def test_a_published_folder_tells_what_it_holds(folder: Path) -> None:
    here = PublishedFolder(folder)
    assert here.names("*.json") == ["args.json", "vocab.json"]
    assert here.first("model.safetensors", "best_model.pt") == "best_model.pt"
    assert str(here) == str(folder)
    (folder / "genes.txt").write_text("A\nB\n", "utf-8")
    assert here.text("genes.txt") == "A\nB\n"
    np.save(folder / "table.npy", np.arange(3))
    assert here.array("table.npy").tolist() == [0, 1, 2]
    save_file({"a": torch.ones(2)}, folder / "m.safetensors")
    assert here.safetensors("m.safetensors")["a"].tolist() == [1, 1]
    import pickle

    (folder / "names.pkl").write_bytes(pickle.dumps({"A": 1}))
    assert here.pickle("names.pkl") == {"A": 1}
    assert set(here.opened) == {"genes.txt", "table.npy", "m.safetensors", "names.pkl"}
    with pytest.raises(WeightsError, match=r"none of a\.bin, b\.bin is there"):
        here.first("a.bin", "b.bin")
