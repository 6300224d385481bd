"""Sets of weights that were pinned: what was imported is what is used, whole, under its own name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder
from scdrugmap.specs import Variant, load_object
from scdrugmap.weights import import_weights, open_weights, places
from scdrugmap_plugin_scgpt import SPEC
from tests.bad_inputs.spoiled_weights import (
    CHECKPOINT,
    DEEP_TUPLES,
    TENSORS,
    Spoil,
    changed_json,
    flipped_bit,
    further_trained,
    link_out,
    replaced,
    with_pickle,
    zip_bomb,
)

CHILD = Path(__file__).parent / "weights_in_child.py"
STRACE = ("strace", "-f", "-qq", "-e", "trace=open,openat,openat2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    return import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def other_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["value_encoder.norm.bias"] += 1
    save_file(tensors, path)


def reordered(vocabulary: dict[str, Any]) -> dict[str, Any]:
    """Give two genes each other's row of the table."""
    first, second = list(vocabulary)[-2:]
    return {**vocabulary, first: vocabulary[second], second: vocabulary[first]}


def manifest(**fields: Any) -> Spoil:
    return changed_json("manifest.json", lambda old: {**old, **fields})


def published(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Spoil:
    return changed_json("manifest.json", lambda old: {**old, "published": change(old["published"])})


def named(name: str) -> Spoil:
    return published(lambda old: {**old, name: next(iter(old.values()))})


def forged_hash(folder: Path) -> None:
    """Edit tensors, and the hash of the file with them, but not their sizes."""
    other_tensors(folder)
    changed_json(
        "manifest.json",
        lambda old: {
            **old,
            "files": {
                **old["files"],
                "model.safetensors": {**old["files"]["model.safetensors"], "sha256": "0" * 64},
            },
        },
    )(folder)


NOT_IMPORTED = "is not the file that was imported"

SPOILT_SETS: dict[str, tuple[Spoil, str]] = {
    "one flipped bit": (lambda folder: flipped_bit(folder / "model.safetensors"), NOT_IMPORTED),
    "truncated import": (truncated, NOT_IMPORTED),
    "tensors of another import": (other_tensors, NOT_IMPORTED),
    "hash that is not the file's": (forged_hash, "expected 0000000000000000"),
    "vocabulary of another order": (
        changed_json("vocabulary.json", reordered),
        "vocabulary.json " + NOT_IMPORTED,
    ),
    "vocabulary of another length, imported": (
        changed_json("vocabulary.json", lambda old: {**old, "ONE": len(old)}),
        "vocabulary.json " + NOT_IMPORTED,
    ),
    "edited configuration": (
        changed_json("config.json", lambda old: {**old, "n_layers": 1}),
        "config.json " + NOT_IMPORTED,
    ),
    "unknown hash": (manifest(files={}), "files: Value error, it names nothing"),
    "file that is not ours": (
        changed_json(
            "manifest.json",
            lambda old: {
                **old,
                "files": {**old["files"], "../../.ssh/id": old["files"]["config.json"]},
            },
        ),
        "it names '../../.ssh/id'",
    ),
    "path ../": (named("../other/best_model.pt"), "is no path inside the folder"),
    "absolute path": (named("/etc/passwd"), "is no path inside the folder"),
    "path of Windows": (named("..\\other"), "is no path inside the folder"),
    "names that collide": (named("BEST_MODEL.PT"), "differ in case only"),
    "right name, wrong model": (manifest(model="uce"), "holds weights of uce, not of scgpt"),
    "links to another user's import": (
        link_out("model.safetensors"),
        "model.safetensors leads out of the folder",
    ),
    "manifest that is a link": (link_out("manifest.json"), "manifest.json leads out of the folder"),
}


@pytest.mark.parametrize("name", SPOILT_SETS)
def test_a_spoilt_set_is_refused(imported: Path, cli: Callable[..., Any], name: str) -> None:
    spoil, message = SPOILT_SETS[name]
    spoil(imported)
    with pytest.raises(WeightsError) as caught:
        load_model("scgpt", weights=imported)
    assert message in caught.value.message
    done = cli("weights", "verify", "scgpt", imported)
    assert done.code == 4
    assert message in done.err
    assert len(done.err.splitlines()) <= 2


def test_two_sets_whose_tensors_were_swapped_are_refused(folder: Path, tmp_path: Path) -> None:
    further_trained(folder)
    first = import_weights(SPEC, CHECKPOINT, output=tmp_path / "first")
    second = import_weights(SPEC, folder, output=tmp_path / "second")
    file = "model.safetensors"
    (first / file).rename(tmp_path / "aside")
    (second / file).rename(first / file)
    (tmp_path / "aside").rename(second / file)
    for target in (first, second):
        with pytest.raises(WeightsError, match=NOT_IMPORTED):
            load_model("scgpt", weights=target)


def test_two_sets_whose_folders_were_swapped_are_not_found_by_the_wrong_name() -> None:
    human, brain = (import_weights(SPEC, CHECKPOINT, variant=v) for v in ("whole-human", "brain"))
    human.rename(human.with_name("aside"))
    brain.rename(human)
    human.with_name("aside").rename(brain)
    with pytest.raises(WeightsError, match="holds brain of scgpt, not whole-human"):
        load_model("scgpt")
    with pytest.raises(WeightsError, match="holds whole-human of scgpt, not brain"):
        load_model("scgpt", settings={"variant": "brain"})
    assert load_model("scgpt", weights=human).weights.label.startswith("brain (")  # as told


def test_one_flipped_bit_of_published_tensors_is_another_set(folder: Path) -> None:
    target = import_weights(SPEC, CHECKPOINT)
    before = open_weights(SPEC, folder)[1]
    assert before.digest == open_weights(SPEC, target)[1].digest
    place = (folder / TENSORS).read_bytes().rindex(b"\x3f", 0, -5_000)  # of a number near one
    flipped_bit(folder / TENSORS, place)
    assert open_weights(SPEC, folder)[1].digest != before.digest
    with pytest.raises(WeightsError, match="is not what was imported as whole-human"):
        import_weights(SPEC, folder)


@pytest.mark.parametrize("name", ["../../../evil", "a/b", ".hidden", "a\nb", "=cmd()", "<b>"])
def test_weights_are_not_kept_under_a_name_that_is_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for weights"):
        import_weights(SPEC, CHECKPOINT, name=name)
    assert not places(SPEC, "whole-human")[0].parent.exists()


def test_a_file_that_changes_between_two_reads_is_refused(folder: Path) -> None:
    here = PublishedFolder(folder)
    here.json("args.json")
    changed_json("args.json", lambda old: {**old, "nlayers": 1})(folder)
    with pytest.raises(WeightsError, match=r"args\.json was changed while it was read"):
        here.json("args.json")


def read_and_change(folder: PublishedFolder, variant: Variant) -> Any:
    """Read as the plugin does; then someone changes the tensors, before they are used."""
    assert SPEC.weights_reader is not None
    weights = load_object(SPEC.weights_reader)(folder, variant)
    further_trained(folder.root)
    return weights


def test_a_file_that_changes_before_the_network_is_built_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"weights_reader": f"{__name__}:read_and_change"})
    for use in (
        lambda: load_model(spec, weights=folder),
        lambda: import_weights(spec, folder, output=tmp_path / "imported"),
    ):
        with pytest.raises(WeightsError, match=r"best_model\.pt was changed while it was read"):
            use()
    assert not (tmp_path / "imported").exists()


def in_child(*arguments: object, before: tuple[str, ...] = ()) -> Any:
    done = subprocess.run(
        [*before, sys.executable, str(CHILD), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files have no path here")
def test_a_file_that_changes_between_hash_and_use_is_refused(tmp_path: Path) -> None:
    arguments: list[object] = []
    for how in ("replace", "overwrite", "remove"):
        folder = shutil.copytree(CHECKPOINT, tmp_path / how)
        evil = shutil.copytree(CHECKPOINT, tmp_path / f"evil-{how}")
        further_trained(evil)
        arguments += [folder, evil / TENSORS, how]
    for found in in_child("race", *arguments):
        assert found["struck"]
        assert found["kind"] == "WeightsError"
        assert "best_model.pt was changed while it was read" in found["message"]


BOMBS: dict[str, tuple[Spoil, str]] = {
    "zip bomb": (zip_bomb, "is a compressed archive"),
    "deep tuples": (with_pickle(DEEP_TUPLES), "levels of tuples"),
    "expanded tensor": (
        replaced(encoder__enc_norm__weight=torch.zeros(1).expand(10**9)),
        "claims 4,000,000,000 bytes",
    ),
    "link to a file outside": (link_out(TENSORS), "leads out of the folder"),
    "link to a file outside, in the vocabulary": (link_out("vocab.json"), "leads out"),
    "huge network": (
        changed_json("args.json", lambda old: {**old, "embsize": 40_000_000}),
        "does not fit into memory",
    ),
}


def hostile_folders(home: Path) -> Path:
    for name, (spoil, _) in BOMBS.items():
        (home / name / "user").mkdir(parents=True)
        spoil(shutil.copytree(CHECKPOINT, home / name / "user" / "given"))
    given = home / "given"
    given.mkdir()
    for name in BOMBS:
        (home / name / "user" / "given").rename(given / name)
    shutil.copytree(CHECKPOINT, given / "sound")
    return given


def assert_inside(paths: list[str], given: Path) -> None:
    """Of the test's own folder nothing was opened but what was given."""
    home = given.parent
    ours = [path for path in paths if Path(path).is_relative_to(home)]
    assert ours
    for path in ours:
        assert Path(path).is_relative_to(given), path


def can_trace() -> bool:
    """Whether the kernel tells what a child opens; Python's own hooks see no compiled code."""
    done = (
        subprocess.run([*STRACE, "true"], capture_output=True, check=False)
        if shutil.which("strace")
        else None
    )
    return done is not None and done.returncode == 0


@pytest.mark.slow
def test_bombs_cost_little_and_nothing_outside_the_folder_is_opened(tmp_path: Path) -> None:
    given, log = hostile_folders(tmp_path), tmp_path / "trace"
    traced = can_trace()
    found = in_child("look", given, before=(*STRACE, "-o", str(log)) if traced else ())
    assert found["outcomes"].pop("sound")["kind"] == ""
    for name, outcome in found["outcomes"].items():
        assert BOMBS[name][1] in outcome["message"], (name, outcome)
        assert outcome["seconds"] < 20
    assert_inside(found["opened"], given)
    if not traced:
        pytest.skip("strace is not there or not allowed: only what Python opens was looked at")
    assert_inside(re.findall(r'"(/[^"]*)"', log.read_text("utf-8", "replace")), given)
