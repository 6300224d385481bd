"""Every record that we write is read back as the same record."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import QUICK, SLOW, hostile_names, numbers, seeds, texts
from pydantic import ValidationError
from records import jsonable, records

from scdrugmap.cards import model_cards
from scdrugmap.config import BenchmarkConfig, DataFile, make_config, read_config, write_config
from scdrugmap.config_records import Adapting, Override
from scdrugmap.data import catalogue
from scdrugmap.data.recipe import Derived, Evidence, Recipe, read_recipe
from scdrugmap.data.samplesheet import read_samplesheet
from scdrugmap.errors import DataError
from scdrugmap.evaluation.protocols import PROTOCOLS
from scdrugmap.files import canonical_json, hash_json, write_json
from scdrugmap.manifest import (
    CONFIG,
    TENSORS,
    VOCABULARY,
    FileRecord,
    Manifest,
    read_manifest,
)
from scdrugmap.registry import get_registry
from scdrugmap.run.entries import Entry
from scdrugmap.run.journal import RunFolder
from scdrugmap.run.plan import Job
from scdrugmap.run.record import RUN_FILE, RunRecord, read_run, write_run
from scdrugmap.run.store import Store
from scdrugmap.run.tasks import StepTask, read_task, reads_embeddings
from scdrugmap.specs import DatasetSpec
from scdrugmap.text.examples import KeptExample, dump_examples, read_examples
from scdrugmap.text.kept import KeptReplies
from scdrugmap.train.record import PredictorInfo, ReferenceInfo, parse_info
from scdrugmap.train.settings import FineTuning

plain_paths = st.from_regex(r"[a-z0-9_]{1,5}(/[a-z0-9_.]{1,5}x){0,2}", fullmatch=True)
RECORD = settings(SLOW, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


references = st.none() | st.builds(
    ReferenceInfo,
    n_cells=st.integers(1, 10**6),
    distance_quantiles=numbers.map(lambda number: (number,) * 101),
)


@RECORD
@given(records(RunRecord))
def test_the_record_of_a_run_comes_back(run: RunRecord) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), run)
        assert read_run(Path(folder)) == run


@RECORD
@given(records(RunRecord), st.floats(0, 1, exclude_max=True))
def test_the_record_of_a_run_that_was_cut_is_refused(run: RunRecord, part: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), run)
        path = Path(folder) / RUN_FILE
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * (len(whole) - 1))])  # but for the end of the last line
        with pytest.raises(DataError, match="cannot be read"):
            read_run(Path(folder))


@RECORD
@given(records(PredictorInfo, reference=references))
def test_what_a_predictor_says_of_itself_comes_back(info: PredictorInfo) -> None:
    assert parse_info(info.model_dump_json(indent=1).encode(), "predictor.zip") == info


@RECORD
@given(
    records(
        Manifest,
        published=st.dictionaries(plain_paths, records(FileRecord), max_size=3),
        files=st.fixed_dictionaries(
            dict.fromkeys((CONFIG, VOCABULARY, TENSORS), records(FileRecord))
        ),
    )
)
def test_the_manifest_of_weights_comes_back(manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "manifest.json", manifest.model_dump(mode="json"))
        assert read_manifest(Path(folder)) == manifest


names = st.sampled_from(["randproj", "hvg-logreg", "knn", "scgpt"])


@st.composite
def configs(draw: st.DrawFn) -> BenchmarkConfig:
    """Draw a benchmark: files of any name, and what else decides a number."""
    files = draw(
        st.lists(
            st.tuples(texts.filter(lambda t: t.strip("/.\x00") and "\x00" not in t), texts),
            min_size=1,
            max_size=3,
            unique_by=lambda pair: pair[0],
        )
    )
    values: dict[str, Any] = {
        "data": [
            {"path": f"/data/{number}/{path}.h5ad", "name": f"n{number}", "drug": drug}
            for number, (path, drug) in enumerate(files)
        ],
        "label": draw(texts.filter(bool)),
        "sensitive": draw(st.lists(hostile_names, max_size=3)),
        "group": draw(st.none() | hostile_names),
        "where": [f"{draw(st.sampled_from(['a', 'b c']))}={draw(hostile_names)}"],
        "models": draw(st.lists(names, min_size=1, unique=True)),
        "seeds": draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True)),
        "draws": draw(st.integers(0, 100_000)),
        "tuning": draw(records(FineTuning, targets=st.none())).model_dump(),
        "validation": draw(st.booleans()),
        "max_cost": draw(st.none() | st.floats(0.001, 1e6)),
        "precision": draw(st.sampled_from(["float32", "bfloat16"])),
    }
    values["settings"] = {values["models"][0]: {"option": draw(hostile_names)}}
    values["overrides"] = {
        values["models"][0]: Override(tuning=draw(records(Adapting))).model_dump()
    }
    return make_config(values)


@RECORD
@given(configs())
def test_the_configuration_of_a_benchmark_comes_back_from_its_yaml(
    config: BenchmarkConfig,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        write_config(config, path)
        again = read_config(path)
        assert again == config
        assert again.identity() == config.identity()


@QUICK
@given(records(DatasetSpec, name=st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True)))
def test_a_registered_dataset_comes_back(spec: DatasetSpec) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCDRUGMAP_DATA", folder)
        catalogue._write({spec.name: spec})
        assert catalogue._registered() == {spec.name: spec}


def _as_yaml(value: Any) -> str:
    """Write YAML as JSON, with escapes for what YAML does not take as it is."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


expressions = st.sampled_from([r"^(\d+)$", r"([A-Z]+)_", r"x\.(.*)", "(é|ß)", r"a\\(b)"])
recipes = records(
    Recipe,
    derived=st.dictionaries(
        texts, st.builds(Derived, column=texts, pattern=expressions), max_size=2
    ),
    evidence=st.lists(
        st.builds(
            Evidence,
            url=texts.map(lambda text: f"https://{text}"),
            quote=texts.map(lambda text: text + 20 * "."),
        ),
        min_size=1,
        max_size=2,
    ),
)


@RECORD
@given(recipes)
def test_a_recipe_comes_back_from_its_yaml(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(_as_yaml(recipe.model_dump(mode="json")), "utf-8")
        again = read_recipe(path)
    assert again == recipe
    assert again.digest() == recipe.digest()


@QUICK
@given(st.lists(records(KeptExample), max_size=4))
def test_examples_of_a_text_model_come_back(examples: list[KeptExample]) -> None:
    assert read_examples(dump_examples(examples)) == tuple(examples)


@QUICK
@given(st.dictionaries(texts, jsonable, max_size=4), st.dictionaries(texts, jsonable, max_size=4))
def test_the_reply_of_a_server_comes_back_to_the_same_request_alone(
    request: dict[str, Any], reply: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = KeptReplies(Store(Path(folder), quiet=True))
        kept.put(request, reply)
        assert KeptReplies(Store(Path(folder), quiet=True)).get(request) == reply
        assert kept.get({**request, "another": 1}) is None


@st.composite
def step_tasks(draw: st.DrawFn) -> StepTask:
    """A task whose jobs are the seeds of one step."""
    entry = draw(
        st.builds(
            Entry,
            name=texts,
            model=texts,
            kind=st.sampled_from(["estimator", "model", "text"]),
            strategy=st.just("frozen") | texts,
            randomize=st.none() | st.integers(0, 2**32),
        )
    )
    step = {
        "protocol": draw(st.sampled_from(sorted(PROTOCOLS))),
        "family": draw(st.sampled_from(["sound", "paper"])),
        "entry": entry,
        "head": draw(st.sampled_from(["logistic", "mlp", None])),
        "tuning": draw(st.none() | records(FineTuning)),
        "shots": draw(st.integers(0, 9)),
        "fold": draw(st.integers(0, 99)),
    }
    return StepTask(
        number=draw(st.integers(0, 9999)),
        jobs=tuple(
            Job(**step, seed=seed)
            for seed in draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=2, unique=True))
        ),
        network=draw(st.integers(0, 50)) if reads_embeddings(entry) else None,
        plan=draw(texts),
    )


@QUICK
@given(step_tasks())
def test_a_task_of_a_workflow_comes_back(task: StepTask) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        write_json(path, task.record())
        again = read_task(path)
    assert asdict(again) == asdict(task)
    assert again.name == task.name


sheet_words = texts.map(lambda text: text.strip().replace("\x00", "0")).filter(
    lambda text: "\r" not in text and "\n" not in text
)


@QUICK
@given(
    st.lists(st.tuples(sheet_words.filter(bool), sheet_words), min_size=1, max_size=5),
    st.sampled_from([",", "\t"]),
)
def test_a_samplesheet_says_what_was_written_into_it(
    rows: list[tuple[str, str]], separator: str
) -> None:
    import csv

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / ("sheet.tsv" if separator == "\t" else "sheet.csv")
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, delimiter=separator)
            writer.writerow(["file", "sample", "label", "drug"])
            for number, (label, drug) in enumerate(rows):
                (folder / f"f{number}.h5ad").touch()
                writer.writerow([f"f{number}.h5ad", f"s{number}", label, drug])
        sheet = read_samplesheet(path)
    for number, ((label, drug), line) in enumerate(zip(rows, sheet.lines, strict=True)):
        assert line.path.name == f"f{number}.h5ad"
        assert line.sample == f"s{number}"
        assert line.facts == {"donor": f"s{number}", "label": label, "drug": drug}


@QUICK
@given(st.lists(st.tuples(texts, st.dictionaries(texts, jsonable, max_size=3)), max_size=4))
def test_the_history_of_a_run_is_one_line_per_event(events: list[tuple[str, dict]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = RunFolder(Path(folder))
        for event, facts in events:
            journal.note(event, **{f"x{key}": value for key, value in facts.items()})
        path = Path(folder) / "history.jsonl"
        lines = path.read_text("utf-8").split("\n")[:-1] if events else []
    seen = [json.loads(line) for line in lines]
    assert [row["event"] for row in seen] == [event for event, _ in events]
    for row, (_, facts) in zip(seen, events, strict=True):
        assert {key[1:]: value for key, value in row.items() if key[0] == "x"} == facts


@QUICK
@given(st.dictionaries(texts, jsonable, max_size=5), seeds)
def test_the_hash_of_a_record_depends_on_its_content_alone(
    record: dict[str, Any], seed: int
) -> None:
    keys = list(record)
    mixed = {keys[place]: record[keys[place]] for place in _order(len(keys), seed)}
    assert hash_json(mixed) == hash_json(record)
    assert hash_json(json.loads(canonical_json(record))) == hash_json(record)
    assert hash_json({**record, "another": None}) != hash_json(record) or "another" in record


def _order(n: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(n).tolist()


@QUICK
@given(st.sampled_from(model_cards(get_registry())))
def test_a_card_of_a_model_is_plain_json(card: dict[str, Any]) -> None:
    assert json.loads(json.dumps(card, allow_nan=False)) == card


@QUICK
@given(records(DataFile), texts.filter(bool))
def test_a_record_with_a_key_that_nobody_knows_is_refused(file: DataFile, key: str) -> None:
    values = {**file.model_dump(), f"unknown {key}": 1}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DataFile.model_validate(values)
