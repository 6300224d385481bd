"""The JSON schema of a benchmark's YAML file, for editors: keys, values and what they mean."""

from __future__ import annotations

from typing import Any

from scdrugmap.config import PAPER, BenchmarkConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SCALARS = ["string", "number", "boolean", "null"]


def config_schema() -> dict[str, Any]:
    """Return the schema of what :func:`scdrugmap.config.read_config` reads.

    It allows what the reader allows: one word for a list of one, a path for a file, and plain
    values for the options of a model.
    """
    from scdrugmap.evaluation.protocols import PROTOCOLS

    made = BenchmarkConfig.model_json_schema()
    records = made.pop("$defs")
    properties = made["properties"]
    properties["protocols"]["items"] = {"type": "string", "enum": [*PROTOCOLS, PAPER]}
    properties["data"]["items"] = {"anyOf": [{"type": "string"}, properties["data"]["items"]]}
    values = {"anyOf": [{"type": _SCALARS}, {"type": "array", "items": {"type": _SCALARS}}]}
    settings = {"type": "object", "additionalProperties": values}
    properties["settings"]["additionalProperties"] = settings
    for record in (made, *records.values()):
        record["properties"] = {
            name: _one_for_many(field) for name, field in record["properties"].items()
        }
    properties = made["properties"]
    properties["controls"]["anyOf"].append({"type": "boolean"})
    return {
        "$schema": DIALECT,
        "title": "scDrugMap benchmark",
        **{key: value for key, value in made.items() if key != "title"},
        "$defs": records,
    }


def _one_for_many(field: dict[str, Any]) -> dict[str, Any]:
    """Let a field that is a list be a single value too."""
    kinds = field.get("anyOf", [field])
    lists = [kind for kind in kinds if kind.get("type") == "array"]
    if not lists:
        return field
    about: dict[str, Any] = {
        key: field[key] for key in ("default", "description", "title") if key in field
    }
    plain = [{k: v for k, v in kind.items() if k not in about} for kind in kinds]
    singles = [kind["items"] for kind in plain if kind.get("type") == "array"]
    return {**about, "anyOf": [*plain, *singles]}
