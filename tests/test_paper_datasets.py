"""The paper's 60 datasets: every fact as published, or marked as corrected."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from scdrugmap.data.catalogue import all_datasets, remove_dataset, select_datasets
from scdrugmap.data.paper import paper_datasets, regimen_components
from scdrugmap.errors import UsageError


def test_there_are_36_primary_and_24_external_datasets() -> None:
    datasets = paper_datasets()
    assert list(datasets) == [
        *(f"P{number:02}" for number in range(1, 37)),
        *(f"E{number:02}" for number in range(1, 25)),
    ]
    collections = [dataset.facts["collection"] for dataset in datasets.values()]
    assert collections == ["primary"] * 36 + ["external"] * 24


def test_sensitive_and_resistant_cells_add_up_where_both_are_known() -> None:
    facts = [dataset.facts for dataset in paper_datasets().values()]
    known = [fact for fact in facts if fact["n_cells"] is not None]
    assert len(known) == 27
    for fact in known:
        assert fact["n_cells"] == fact["n_cells_sensitive"] + fact["n_cells_resistant"]  # type: ignore[operator]


def test_a_corrected_fact_names_what_was_published_and_why() -> None:
    dataset = paper_datasets()["P35"]
    assert dataset.facts["regimen"] == "vemurafenib + cobimetinib"
    (correction,) = dataset.corrections
    assert correction.column == "regimen"
    assert correction.source == "vemurafenib + combimetinib"
    assert correction.reason == "misspelt drug"
    merged = [name for name, d in paper_datasets().items() if d.facts["tissue"] == "Tumor tissue"]
    assert any(c.column == "tissue" for name in merged for c in paper_datasets()[name].corrections)


def test_datasets_with_the_same_untreated_cells_share_a_group() -> None:
    groups: dict[object, list[str]] = {}
    for name, dataset in paper_datasets().items():
        groups.setdefault(dataset.facts["shared_control_group"], []).append(name)
    assert groups["P-GSE164897-ctrl"] == ["P34", "P35", "P36"]
    assert groups["P-GSE131984-ctrl"] == ["P27", "P28", "P29", "P30", "P31"]


@pytest.mark.parametrize(
    ("regimen", "components"),
    [
        ("oxaliplatin and 5-FU", {"oxaliplatin", "5-fluorouracil"}),
        ("DARA-KRD (daratumumab + carfilzomib)", {"dara-krd", "daratumumab", "carfilzomib"}),
        ("a + (docetaxel or pemetrexed)", {"a", "docetaxel", "pemetrexed"}),
        ("anti-CTLA4+PD-1", {"anti-ctla4", "anti-pd-1"}),
        ("Camrelizumab combined with Anlotinib", {"camrelizumab", "anlotinib"}),
        ("talazoparib", {"talazoparib"}),
        ("NA", set()),
    ],
)
def test_a_regimen_is_divided_into_its_drugs(regimen: str, components: set[str]) -> None:
    assert regimen_components(regimen) == components


def test_filters_hold_together_and_name_what_there_is() -> None:
    entries = all_datasets()
    both = select_datasets(entries, {"cancer": "melanoma", "drug_type": "immuno"})
    assert {entry.spec.facts["accession"] for entry in both.values()} == {"GSE115978", "GSE120575"}
    assert list(select_datasets(entries, {}, drug="Paclitaxel")) == ["P08", "P27", "P30"]
    with pytest.raises(UsageError, match="no dataset has --tissue 'brain'") as error:
        select_datasets(entries, {"tissue": "brain"})
    assert "Bone marrow aspirate" in str(error.value.hint)
    with pytest.raises(UsageError) as error:
        select_datasets(entries, {}, drug="paclitaxl")
    assert error.value.hint == "did you mean paclitaxel?"


def test_show_marks_corrections_and_doubts(cli: Callable) -> None:
    shown = cli("datasets", "show", "P36")
    assert "corrected: cancer_type_level2 was published as 'B+E2:E57" in shown.out
    assert "note: untreated control shared by P34-P36" in shown.out
    facts = json.loads(cli("datasets", "show", "P36", "--json").out)
    assert facts["corrections"][0]["corrected"] == "BRAF V600E-mutant melanoma"


def test_a_dataset_of_the_paper_cannot_be_removed() -> None:
    with pytest.raises(UsageError, match="is one of the paper's"):
        remove_dataset("P01")
