"""A run as an RO-Crate, read back with the library and by hand."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.errors import DataError
from scdrugmap.report.crate import PROFILE, write_crate
from scdrugmap.run.record import read_run, write_run
from tests.test_report import SOUND, make_run

DIGEST = hashlib.sha256(b"cells").hexdigest()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("crate") / "run", protocols=(SOUND,))
    record = read_run(folder)
    provenance = {
        **record.provenance,
        "command": ["scdrugmap", "benchmark"],
        "versions": {"python": "3.11", "torch": "2.13.0", "platform": "Linux x86_64"},
        "plugins": [
            {"name": "scgpt", "distribution": "scdrugmap-plugin-scgpt", "version": "0.1.0"}
        ],
        "inputs": [
            {"name": "cohort.h5ad", "n_bytes": 5, "sha256": DIGEST},
            {"name": "folder of cells", "n_bytes": None},
        ],
    }
    times = {"began": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T04:00:00+00:00"}
    write_run(folder, record.model_copy(update={"provenance": provenance, "times": times}))
    return folder


@pytest.fixture(scope="module")
def crate(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "run.zip"
    write_crate(run, output)
    return output


def graph(crate: Path) -> dict[str, dict[str, Any]]:
    with zipfile.ZipFile(crate) as archive:
        metadata = json.loads(archive.read("ro-crate-metadata.json"))
    entities = metadata["@graph"]
    assert len({entity["@id"] for entity in entities}) == len(entities)
    return {entity["@id"]: entity for entity in entities}


def listed(value: Any) -> list[dict[str, str]]:
    return value if isinstance(value, list) else [value]


def test_the_library_reads_it_back(crate: Path, run: Path) -> None:
    from rocrate.rocrate import ROCrate

    found = ROCrate(str(crate))
    assert found.name == "scDrugMap benchmark hand-made"
    assert found.root_dataset["license"]
    names = {entity.id for entity in found.data_entities}
    assert {"run.json", "metrics.tsv", "CITATION.cff", "references.bib"} <= names
    assert "splits-pooled-group.tsv.gz" in names


def test_it_has_what_the_profile_of_process_runs_asks_for(crate: Path) -> None:
    found = graph(crate)
    root = found["./"]
    assert {"name", "description", "datePublished", "license", "conformsTo"} <= set(root)
    assert root["conformsTo"] == {"@id": PROFILE}
    assert found[PROFILE]["@type"] == "CreativeWork"
    assert root["mentions"] == {"@id": "#run"}
    action = found["#run"]
    assert action["@type"] == "CreateAction"
    assert (action["startTime"], action["endTime"]) == (
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T04:00:00+00:00",
    )
    software = found[action["instrument"]["@id"]]
    assert software["@type"] == "SoftwareApplication"
    assert software["softwareVersion"] == "0.1.0"
    assert {"#software-torch", "#plugin-scgpt"} <= {
        item["@id"] for item in listed(software["softwareRequirements"])
    }


def test_every_reference_inside_it_leads_somewhere(crate: Path) -> None:
    found = graph(crate)
    outside = ("http://schema.org/", "https://spdx.org/", "https://w3id.org/ro/crate/")
    for entity in found.values():
        for name, value in entity.items():
            for item in listed(value) if name != "@type" else []:
                if isinstance(item, dict) and not item["@id"].startswith(outside):
                    assert item["@id"] in found, (entity["@id"], name)


def test_hashes_are_those_of_the_files_and_inputs_are_named_by_theirs(crate: Path) -> None:
    found = graph(crate)
    with zipfile.ZipFile(crate) as archive:
        packed = set(archive.namelist())
        for name in ("run.json", "metrics.tsv", "predictions-pooled-group.tsv.gz"):
            raw = archive.read(name)
            assert found[name]["sha256"] == hashlib.sha256(raw).hexdigest()
            assert found[name]["contentSize"] == str(len(raw))
    files = {item["@id"] for item in found["./"]["hasPart"]}
    assert packed == files | {"ro-crate-metadata.json"}
    inputs = [found[item["@id"]] for item in found["#run"]["object"]]
    hashed = next(item for item in inputs if item["name"] == "cohort.h5ad")
    assert hashed["sha256"] == DIGEST
    assert hashed["@id"].startswith("ni:///sha-256;")
    unknown = next(item for item in inputs if item["name"] == "folder of cells")
    assert "sha256" not in unknown


def test_weights_licence_and_citation_of_a_model_are_there(crate: Path) -> None:
    found = graph(crate)
    model = found["#model-scgpt-frozen"]
    facts = {
        found[item["@id"]]["name"]: found[item["@id"]]["value"]
        for item in listed(model["additionalProperty"])
    }
    assert facts["weights"] == "random weights (untrained, means nothing)"
    assert found[model["citation"]["@id"]]["@type"] == "ScholarlyArticle"
    assert {"@id": "#model-scgpt-frozen"} in found["#run"]["object"]


def test_the_manifest_of_imported_weights_is_included_while_it_is_theirs(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", protocols=(SOUND,))
    file = {"n_bytes": 1, "sha256": "f" * 64}
    manifest = {
        "model": "scgpt",
        "name": "human",
        "variant": "human",
        "digest": "d" * 64,
        "published": {},
        "files": dict.fromkeys(["config.json", "vocabulary.json", "model.safetensors"], file),
        "licence": "MIT",
        "commercial_use": True,
        "homepage": "",
        "n_tensors": 1,
        "n_parameters": 1,
        "imported_at": "2026",
        "scdrugmap": "0.1.0",
    }
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "manifest.json").write_text(json.dumps(manifest))
    record = read_run(folder)

    def with_digest(digest: str) -> set[str]:
        models = tuple(
            model.model_copy(update={"identity": {"weights": digest}})
            if model.name == "scgpt"
            else model
            for model in record.models
        )
        config = {**record.config, "weights": {"scgpt": "../weights"}}
        write_run(folder, record.model_copy(update={"models": models, "config": config}))
        write_crate(folder, tmp_path / f"{digest[:1]}.zip")
        return set(graph(tmp_path / f"{digest[:1]}.zip"))

    assert "weights/scgpt/manifest.json" in with_digest("d" * 64)
    assert "weights/scgpt/manifest.json" not in with_digest("e" * 64)


def test_the_same_run_gives_the_same_bytes(run: Path, crate: Path, tmp_path: Path) -> None:
    write_crate(run, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == crate.read_bytes()


def test_a_damaged_run_makes_no_crate(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", protocols=(SOUND,))
    (folder / "metrics.tsv").write_text("a\tb\n")
    with pytest.raises(DataError):
        write_crate(folder, tmp_path / "r.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
