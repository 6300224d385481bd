"""References of models as BibTeX and CITATION.cff."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from scdrugmap.registry import get_registry
from scdrugmap.report.citations import (
    TOOL_AUTHORS,
    TOOL_LICENCE,
    TOOL_TITLE,
    bibtex,
    citation_file,
    citations,
)
from scdrugmap.run.record import ModelRecord, RunRecord


def run_with(*texts: str, name: str = "scgpt") -> RunRecord:
    models = tuple(
        ModelRecord(name=f"{name}{i}", title="", kind="model", strategy="frozen", citation=text)
        for i, text in enumerate(texts)
    )
    return RunRecord(
        name="r", config={}, config_id="0" * 64, datasets=(), models=models, protocols=()
    )


def test_a_reference_is_read_apart() -> None:
    work = citations(
        run_with(
            "Cui H et al. scGPT: toward a foundation model. Nature Methods 21, 1470-1480 (2024). "
            "doi:10.1038/s41592-024-02201-0"
        )
    )[-1]
    assert work.authors == "Cui H et al"
    assert work.title == "scGPT: toward a foundation model"
    assert work.journal == "Nature Methods 21, 1470-1480"
    assert (work.year, work.doi) == ("2024", "10.1038/s41592-024-02201-0")
    entry = bibtex([work])
    assert entry.startswith("@article{scgpt0,\n")
    assert "author = {Cui, H and others}" in entry


def test_a_reference_in_other_words_is_kept_whole() -> None:
    work = citations(run_with("See the website"))[-1]
    assert work.title == ""
    assert "note = {See the website}" in bibtex([work])


def test_nothing_in_a_reference_breaks_out_of_its_field() -> None:
    works = citations(run_with("Evil} @comment{x. A & B_1 $5 # 3 % {x} \\\\end. J (2020)"))
    text = bibtex(works)
    assert text.count("{") == text.count("}")
    assert "@comment{" not in text
    assert "A \\& B\\_1 \\$5 \\# 3 \\% (x)" in text


def test_models_of_one_reference_stand_together() -> None:
    works = citations(run_with("A B. Title. J (2020)", "A B. Title. J (2020)"))
    assert [work.models for work in works[2:]] == [("scgpt0", "scgpt1")]


@pytest.mark.parametrize("name", sorted(get_registry().items["model"]))
def test_every_installed_model_has_a_readable_reference(name: str) -> None:
    spec = get_registry().provided("model", name).spec
    work = citations(run_with(spec.citation))[-1]
    assert work.title
    assert work.year.startswith(("19", "20"))
    assert work.authors


def test_the_citation_file_is_yaml_and_agrees_with_that_of_the_project() -> None:
    ours = YAML(typ="safe").load(citation_file(run_with('A B. A: "title" #1. J (2020)')))
    assert ours["cff-version"] == "1.2.0"
    assert ours["references"][1]["title"] == 'A: "title" #1'
    path = Path(__file__).parent.parent / "CITATION.cff"
    project = YAML(typ="safe").load(path.read_text("utf-8"))
    assert project["title"] == TOOL_TITLE
    assert project["license"] == TOOL_LICENCE
    assert project["authors"] == [{"name": TOOL_AUTHORS}]
    assert ours["references"][0]["title"] == project["references"][0]["title"]
