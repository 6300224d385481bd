"""Recipes: how the files of a GEO series become one h5ad file with labels, as data.

A recipe names files by patterns and says what is known of the cells in each: sample, donor, time
point, response. It counts as verified only where it quotes a public text that names the samples;
every other one is a draft, which has to be accepted by name.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scdrugmap.config_errors import YAML_DAMAGE
from scdrugmap.errors import UsageError
from scdrugmap.files import hash_json

FOLDER = "recipes"

Layout = Literal["10x_folder", "10x_h5", "cells_in_rows", "genes_in_rows"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Part):
    """A public text that names the samples."""

    url: str = Field(pattern=r"^https://")
    quote: str = Field(min_length=20)


class Source(_Part):
    """One file of cells (three for a 10x folder), and what all of its cells have in common."""

    file: str = Field(description="pattern of its name, in the folder or in `archive`")
    archive: str = Field("", description="pattern of the tar file that holds it")
    layout: Layout
    skip_after_header: int = Field(0, ge=0, description="lines between the header and the values")
    obs: dict[str, str] = Field(
        default_factory=dict, description="column to the value of all cells"
    )


class Derived(_Part):
    """A column taken from another one by a regular expression with one group."""

    column: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, text: str) -> str:
        try:
            groups = re.compile(text).groups
        except re.error as err:
            raise ValueError(f"{text!r} is no regular expression: {err}") from err
        if groups != 1:
            raise ValueError(f"{text!r} has {groups} groups, expected 1")
        return text


class Annotations(_Part):
    """A table with a row per cell."""

    file: str
    separator: str = "\t"
    skip_rows: int = Field(0, ge=0, description="lines before the header")
    encoding: Literal["utf-8", "latin1"] = "utf-8"
    cell: str = Field(description="column with the name of the cell")
    rows: dict[str, str] = Field(
        default_factory=dict, description="column to expression that a row must match to count"
    )
    columns: dict[str, str] = Field(description="our column to theirs")


class Recipe(_Part):
    """How one series is made into an h5ad file."""

    accession: str = Field(pattern=r"^GSE[0-9]+$")
    title: str
    draft: bool = True
    evidence: tuple[Evidence, ...] = ()
    sources: tuple[Source, ...] = Field(min_length=1)
    annotations: Annotations | None = None
    derived: dict[str, Derived] = Field(default_factory=dict)
    label: str = Field("response", description="column with the response, in their words")
    sensitive: tuple[str, ...]
    resistant: tuple[str, ...]
    drop: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict, description="column to value of all cells")
    remarks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_quoted_unless_it_is_a_draft(self) -> Recipe:
        if not self.draft and not self.evidence:
            raise ValueError("a recipe without a quoted text that names the samples is a draft")
        return self

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all that it says."""
        return hash_json(self.model_dump(mode="json"))


def recipe_names() -> list[str]:
    """Return the accessions that recipes are shipped for."""
    folder = resources.files("scdrugmap.data").joinpath(FOLDER)
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def read_recipe(source: str | Path) -> Recipe:
    """Read the recipe of an accession, or a recipe's file.

    Raises
    ------
    UsageError
        There is none, or the file is none.
    """
    text = str(source)
    if not text.endswith((".yaml", ".yml")):
        if text not in recipe_names():
            raise UsageError(
                f"there is no recipe for {text}",
                hint=f"there are: {', '.join(recipe_names())}; --recipe FILE takes one of yours "
                "(docs/how-to/public_data.md)",
            )
        content = resources.files("scdrugmap.data").joinpath(FOLDER, f"{text}.yaml")
        return _parse(content.read_text("utf-8"), text)
    try:
        return _parse(Path(source).read_text("utf-8"), text)
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{source} cannot be read: {err}") from err


def _parse(text: str, where: str) -> Recipe:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values: Any = YAML(typ="safe").load(text)
    except (YAMLError, *YAML_DAMAGE) as err:
        raise UsageError(f"{where} is no YAML: {' '.join(str(err).split())}") from err
    try:
        return Recipe.model_validate(values)
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {place or 'the recipe'}: {first['msg'].removeprefix('Value error, ')}",
            hint="docs/how-to/public_data.md lists what a recipe holds",
        ) from err
