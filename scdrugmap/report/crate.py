"""A finished run as an RO-Crate: one zip file that says what made what, for archives.

It follows the Process Run Crate profile (https://w3id.org/ro/wfrun/process/0.5): one action, the
software that did it, its inputs and its results. Inputs are named by their hash and not included.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.files import atomic_path, hash_file, scratch_folder
from scdrugmap.report.citations import Citation, bibtex, citation_file, citations
from scdrugmap.report.export import file_name
from scdrugmap.report.run_tables import read_tables

if TYPE_CHECKING:
    from scdrugmap.run.record import ModelRecord, RunRecord

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
SHA256_TERM = "https://w3id.org/ro/terms/workflow-run#sha256"
LICENCE_URL = "https://spdx.org/licenses/Apache-2.0"

_KINDS = {
    "config.yaml": ("Configuration", "application/yaml"),
    "run.json": ("Record of the run: all that decided its numbers", "application/json"),
    "metrics.tsv": ("Every metric with its interval", "text/tab-separated-values"),
    "comparisons.tsv": ("Models compared pair by pair", "text/tab-separated-values"),
    "cellmap.tsv.gz": ("Coordinates of the cell map", "application/gzip"),
    "report.html": ("Report", "text/html"),
    "splits-*.tsv.gz": ("Split manifest", "application/gzip"),
    "predictions-*.tsv.gz": ("Predictions", "application/gzip"),
    "controls/*.tsv.gz": ("Control with permuted labels", "application/gzip"),
}


def write_crate(run_folder: Path, output: Path) -> None:
    """Write a run as an RO-Crate in one zip file.

    Parameters
    ----------
    run_folder : Path
        A folder that ``scdrugmap benchmark`` filled.
    output : Path
        The zip file; the same run gives the same bytes.

    Raises
    ------
    UsageError
        The folder holds no finished run, or rocrate is missing.
    DataError
        One of its tables is damaged: a crate of it would be no record.
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError as err:
        raise UsageError(
            "--crate needs rocrate, which is not installed", hint="pip install 'scdrugmap[report]'"
        ) from err
    folder, output = Path(run_folder), Path(output)
    run = read_tables(folder).run
    crate = ROCrate(version="1.1")
    ended = _ended(run, folder)
    crate.metadata.extra_terms["sha256"] = SHA256_TERM
    _describe_root(crate, run, ended)
    results = [_add(crate, folder, path) for path in _files(folder)]
    configuration = [item for item in results if item.id == "config.yaml"]
    results = [item for item in results if item.id != "config.yaml"]
    works = citations(run)
    _add_text(crate, "CITATION.cff", citation_file(run), "Whom to cite", "application/yaml")
    _add_text(crate, "references.bib", bibtex(works), "Works to cite", "application/x-bibtex")
    articles = {name: _add_work(crate, work) for work in works for name in work.models}
    models = [_add_model(crate, run, model, articles, folder) for model in run.models]
    inputs = [_add_input(crate, item) for item in run.provenance.get("inputs", [])]
    software = _add_software(crate, run)
    paper = next(work for work in works if work.key == "scdrugmap-paper")
    software["citation"] = _add_work(crate, paper)
    action = crate.add_action(
        software,
        identifier="#run",
        object=[*configuration, *inputs, *models],
        result=results,
        properties={
            "@type": "CreateAction",
            "name": f"Benchmark {run.name}",
            "description": " ".join(map(str, run.provenance.get("command", []))) or "benchmark",
            "endTime": ended,
            "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
            **({"startTime": run.times["began"]} if "began" in run.times else {}),
        },
    )
    crate.root_dataset["mentions"] = action
    with scratch_folder(output) as place:
        crate.write(place)
        with atomic_path(output) as temporary:
            _zip(place, temporary, ended)


def _files(folder: Path) -> Iterator[Path]:
    for pattern in _KINDS:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _describe_root(crate: Any, run: RunRecord, ended: str) -> None:
    from rocrate.model.contextentity import ContextEntity

    root = crate.root_dataset
    cells = sum(item.n_used for item in run.datasets)
    crate.name = f"scDrugMap benchmark {run.name}"
    crate.description = (
        f"{len(run.models)} models and controls on {cells:,} labelled cells under "
        f"{', '.join(item.name for item in run.protocols)}: which single cells are sensitive to a "
        f"drug. Configuration {run.config_id[:16]}."
    )
    root["datePublished"] = ended
    root["identifier"] = f"scdrugmap-run:{run.config_id}"
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    root["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, properties=profile))
    unstated = {
        "@type": "CreativeWork",
        "name": "No licence stated",
        "description": "The licence of these results is stated by whoever publishes them.",
    }
    root["license"] = crate.add(ContextEntity(crate, "#licence-of-results", properties=unstated))


def _add(crate: Any, folder: Path, path: Path) -> Any:
    """Add a file of the run, with its hash and size."""
    name = path.relative_to(folder).as_posix()
    title, mime = next(
        about for pattern, about in _KINDS.items() if path.relative_to(folder).match(pattern)
    )
    properties = {
        "name": f"{title}: {name}",
        "encodingFormat": mime,
        "contentSize": str(path.stat().st_size),
        "sha256": hash_file(path),
    }
    return crate.add_file(str(path), dest_path=name, properties=properties)


def _add_text(crate: Any, name: str, text: str, title: str, mime: str) -> Any:
    properties = {
        "name": title,
        "encodingFormat": mime,
        "contentSize": str(len(text.encode())),
    }
    return crate.add_file(io.StringIO(text), dest_path=name, properties=properties)


def _add_input(crate: Any, item: dict[str, Any]) -> Any:
    """Name a file that was read, by its hash where the run recorded one (RFC 6920)."""
    from rocrate.model.contextentity import ContextEntity

    digest = item.get("sha256", "")
    properties = {
        "@type": "CreativeWork",  # a File would have to lie in the crate
        "name": item["name"],
        "description": "Cells that were read; not part of this crate"
        + ("." if digest else ", and known by name and size only."),
        **({"contentSize": str(item["n_bytes"])} if item.get("n_bytes") is not None else {}),
        **({"sha256": digest} if digest else {}),
    }
    if digest:
        coded = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
        identifier = f"ni:///sha-256;{coded}"
    else:
        identifier = f"#input-{file_name(item['name'])}"
    return crate.add(ContextEntity(crate, identifier, properties=properties))


def _add_work(crate: Any, work: Citation) -> Any:
    from rocrate.model.contextentity import ContextEntity

    identifier = f"https://doi.org/{work.doi}" if work.doi else (work.url or f"#work-{work.key}")
    known = crate.dereference(identifier)
    if known is not None:
        return known
    properties = {
        "@type": "ScholarlyArticle",
        "name": work.title or work.text,
        "description": work.text,
        **({"datePublished": work.year} if work.year else {}),
    }
    return crate.add(ContextEntity(crate, identifier, properties=properties))


def _add_model(
    crate: Any, run: RunRecord, model: ModelRecord, articles: dict[str, Any], folder: Path
) -> Any:
    """Describe a model: weights by their hash, their licence, options, and whom to cite."""
    from rocrate.model.contextentity import ContextEntity

    name = file_name(f"{model.name}-{model.strategy}")
    facts = {
        "strategy": model.strategy,
        "control": model.control,
        "weights": model.weights,
        "weights digest": str(model.identity.get("weights", "")),
        "options": json.dumps(model.identity.get("options", {}), sort_keys=True),
        "code digest": str(model.identity.get("code", "")),
        "commercial use": "" if model.commercial_use is None else str(model.commercial_use).lower(),
    }
    values = [
        crate.add(
            ContextEntity(
                crate,
                f"#model-{name}-{file_name(key)}",
                properties={"@type": "PropertyValue", "name": key, "value": value},
            )
        )
        for key, value in facts.items()
        if value
    ]
    properties: dict[str, Any] = {
        "@type": "SoftwareApplication",
        "name": model.name,
        "description": model.title,
        "softwareVersion": model.plugin,
        "license": model.licence or LICENCE_URL,
        "additionalProperty": values,
    }
    if model.homepage.startswith("https://"):
        properties["url"] = model.homepage
    entity = crate.add(ContextEntity(crate, f"#model-{name}", properties=properties))
    article = articles.get(model.model or model.name)
    if article is not None:
        entity["citation"] = article
    manifest = _weights_manifest(run, model, folder)
    if manifest is not None:
        dest = f"weights/{file_name(model.model or model.name)}/manifest.json"
        entity["hasPart"] = crate.dereference(dest) or crate.add_file(
            str(manifest),
            dest_path=dest,
            properties={
                "name": f"Manifest of the weights of {model.model or model.name}",
                "encodingFormat": "application/json",
                "contentSize": str(manifest.stat().st_size),
                "sha256": hash_file(manifest),
            },
        )
    return entity


def _weights_manifest(run: RunRecord, model: ModelRecord, folder: Path) -> Path | None:
    """Return the manifest of imported weights, if they are still those of the run."""
    from scdrugmap.manifest import MANIFEST, read_manifest

    given = run.config.get("weights", {}).get(model.model or model.name)
    if not isinstance(given, str) or given == "random":
        return None
    path = folder / given / MANIFEST
    if not path.is_file():
        return None
    try:
        known = read_manifest(path.parent)
    except WeightsError:
        return None  # the hash stands in the record of the run, whatever became of the folder
    return path if known.digest == model.identity.get("weights") else None


def _add_software(crate: Any, run: RunRecord) -> Any:
    """Describe the software that ran, and the packages whose versions can change a number."""
    from rocrate.model.contextentity import ContextEntity

    def add(identifier: str, name: str, version: str, **more: Any) -> Any:
        properties = {
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
            **more,
        }
        return crate.add(ContextEntity(crate, identifier, properties=properties))

    versions = run.provenance.get("versions", {})
    needed = [
        add(f"#software-{file_name(name)}", name, str(version))
        for name, version in versions.items()
        if name != "platform"
    ]
    plugins = [
        add(
            f"#plugin-{file_name(plugin['name'])}",
            plugin["distribution"] or plugin["name"],
            plugin["version"],
        )
        for plugin in run.provenance.get("plugins", [])
    ]
    return add(
        "#scdrugmap",
        "scDrugMap",
        str(run.provenance.get("scdrugmap", "")),
        license={"@id": LICENCE_URL},
        softwareRequirements=[*needed, *plugins],
        **({"operatingSystem": versions["platform"]} if "platform" in versions else {}),
    )


def _ended(run: RunRecord, folder: Path) -> str:
    """Return when the run ended, ISO 8601."""
    if "ended" in run.times:
        return str(run.times["ended"])
    written = (folder / "run.json").stat().st_mtime
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")


def _zip(place: Path, target: Path, ended: str) -> None:
    """Pack a folder: names in order and one time for all, so that the bytes can be repeated."""
    when = datetime.fromisoformat(ended).timetuple()[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(place).as_posix(), when)
            entry.external_attr = 0o644 << 16
            packed = path.suffix in (".gz", ".zip")
            entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packing:
                while block := source.read(1 << 20):
                    packing.write(block)
