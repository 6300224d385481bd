"""Protocols that hold out a dataset, a study, a disease, a drug or a collection."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.protocols import PROTOCOLS
from scdrugmap.evaluation.splits import Split, make_split
from scdrugmap.evaluation.tables import SPLIT_COLUMNS, check_splits, read_splits, write_splits

HOLDING = [name for name, protocol in PROTOCOLS.items() if protocol.holds_out and name != "within"]
LEAVING = ["lodo", "loso", "loco", "lodrug", "external", "zero-shot"]
"""Those that train on what is left, without any label of the target."""

FACTS = {
    "d0": ("s0", "Melanoma", "vemurafenib + trametinib", "primary"),
    "d1": ("s0", "Melanoma", "vemurafenib", "primary"),
    "d2": ("s1", "Lung cancer", "erlotinib", "primary"),
    "d3": ("s2", "Breast cancer", "paclitaxel", "external"),
}


def design(n_donors: int = 20, n_cells: int = 3) -> Design:
    """Make four datasets, two of one study, of donors with either label in turn."""
    rows = [
        {
            "dataset": dataset,
            "cell": f"c{donor}_{i}",
            "sample": f"{dataset}_s{donor}",
            "donor": f"{dataset}_p{donor}",
            "study": study,
            "label": "resistant" if donor % 2 else "sensitive",
            "fingerprint": f"{dataset}_{donor}_{i}",
            "cancer_type": cancer,
            "drug": drug,
            "collection": collection,
        }
        for dataset, (study, cancer, drug, collection) in FACTS.items()
        for donor in range(n_donors)
        for i in range(n_cells)
    ]
    return Design(pd.DataFrame(rows, dtype=object))


def only(of: Design, *datasets: str) -> Design:
    return Design(of.frame[of.frame["dataset"].isin(datasets)].reset_index(drop=True))


def tie(of: Design, one: str, other: str) -> Design:
    """Make the first cells of two donors copies of each other."""
    frame = of.frame.copy()
    for donor in (one, other):
        frame.loc[frame.index[frame["donor"] == donor][0], "fingerprint"] = "copy"
    return Design(frame)


def roles(split: Split, target: str, column: str) -> dict[str, set[str]]:
    fold = split.table[split.table["target"] == target]
    return {str(role): set(part[column]) for role, part in fold.groupby("role")}


@pytest.mark.parametrize("protocol", HOLDING)
def test_table_begins_with_the_pinned_columns_and_passes_its_own_check(protocol: str) -> None:
    table = make_split(design(), protocol).table
    assert tuple(table.columns[: len(SPLIT_COLUMNS)]) == SPLIT_COLUMNS
    check_splits(table)


@pytest.mark.parametrize("protocol", HOLDING)
def test_order_of_the_cells_changes_nothing(protocol: str) -> None:
    shuffled = Design(design().frame.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(
        make_split(design(), protocol).table, make_split(shuffled, protocol).table
    )


@given(
    copies=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 239)), max_size=4),
    protocol=st.sampled_from(HOLDING),
    validation=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_no_component_is_trained_on_and_tested(
    copies: list[tuple[int, int]], protocol: str, validation: bool
) -> None:
    frame = design().frame
    for a, b in copies:
        frame.loc[a, "fingerprint"] = frame.loc[b, "fingerprint"]
    table = make_split(Design(frame), protocol, validation=validation).table
    table = table.merge(frame[["dataset", "cell", "fingerprint"]])
    seen = table[table["role"] != "excluded"]
    for column in ("group", "donor", "fingerprint"):
        mixed = seen.groupby(["fold", column])["role"].agg(set).map(len)
        if protocol.endswith("cells"):  # a group gives training cells, its others are excluded
            mixed = seen[seen["role"] == "test"].groupby(["fold", column])["role"].agg(len)
            both = set(mixed.index) & set(
                seen[seen["role"] != "test"].groupby(["fold", column]).groups
            )
            assert not both
        else:
            assert (mixed == 1).all()


@pytest.mark.parametrize(
    ("protocol", "column", "targets"),
    [
        ("lodo", "dataset", ["d0", "d1", "d2", "d3"]),
        ("loso", "study", ["s0", "s1", "s2"]),
        ("loco", "cancer_type", ["Breast cancer", "Lung cancer", "Melanoma"]),
    ],
)
def test_each_is_held_out_in_turn(protocol: str, column: str, targets: list[str]) -> None:
    split = make_split(design(), protocol)
    assert list(split.table["target"].drop_duplicates().sort_values()) == sorted(targets)
    for target in targets:
        found = roles(split, target, column)
        assert found["test"] == {target}
        assert target not in found["train"]
    tested = split.table[split.table["role"] == "test"]
    assert len(tested) == len(design().frame)
    assert not tested.duplicated(["dataset", "cell"]).any()


def test_lodo_excludes_what_shares_a_group_with_the_target() -> None:
    split = make_split(tie(design(), "d0_p1", "d2_p1"), "lodo")
    found = roles(split, "d0", "donor")
    assert found["excluded"] == {"d2_p1"}
    assert "dataset d0: 3 other cells share a group" in "\n".join(split.notices)


def test_lodrug_holds_out_every_regimen_with_the_drug() -> None:
    split = make_split(design(), "lodrug")
    drugs = {"vemurafenib", "trametinib", "erlotinib", "paclitaxel"}
    assert set(split.table["target"]) == drugs
    assert roles(split, "vemurafenib", "dataset") == {"test": {"d0", "d1"}, "train": {"d2", "d3"}}
    assert roles(split, "trametinib", "dataset")["test"] == {"d0"}


def test_lodrug_refuses_a_regimen_without_a_drug() -> None:
    frame = design().frame.replace({"drug": {"erlotinib": "NA"}})
    with pytest.raises(DataError, match="the regimen 'NA' names no drug"):
        make_split(Design(frame), "lodrug")


def test_external_trains_on_primary_and_tests_once() -> None:
    split = make_split(design(), "external")
    assert split.table["fold"].nunique() == 1
    assert roles(split, "external", "dataset") == {"test": {"d3"}, "train": {"d0", "d1", "d2"}}


def test_external_datasets_can_be_named() -> None:
    frame = design().frame.drop(columns="collection")
    split = make_split(Design(frame), "external", targets=["d0", "d1"])
    assert roles(split, "external", "dataset")["train"] == {"d2", "d3"}


def test_external_without_collection_asks_for_it() -> None:
    frame = design().frame.drop(columns="collection")
    with pytest.raises(UsageError, match="which cells are external") as stop:
        make_split(Design(frame), "external")
    assert "--collection" in stop.value.hint


def test_external_refuses_other_words() -> None:
    frame = design().frame.replace({"collection": {"external": "validation"}})
    with pytest.raises(DataError, match="60 cells are of the collection 'validation'"):
        make_split(Design(frame), "external")


def test_zero_shot_trains_on_other_studies_only() -> None:
    split = make_split(design(), "zero-shot")
    assert roles(split, "d0", "dataset") == {"test": {"d0"}, "train": {"d2", "d3"}}
    assert PROTOCOLS["zero-shot"].frozen


def test_zero_shot_without_labels_trains_on_nothing() -> None:
    table = make_split(design(), "zero-shot-unlabelled", validation=True).table
    assert set(table["role"]) == {"test"}
    assert len(table) == len(design().frame)
    assert not PROTOCOLS["zero-shot-unlabelled"].trains


@pytest.mark.parametrize(("protocol", "target"), [("lodo", "d2"), ("lodrug", "Erlotinib")])
def test_one_target_can_be_chosen(protocol: str, target: str) -> None:
    table = make_split(design(), protocol, targets=[target]).table
    assert table["fold"].nunique() == 1
    assert set(table.loc[table["role"] == "test", "dataset"]) == {"d2"}


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'Melanom' is no cancer type; did you mean Melanoma"):
        make_split(design(), "loco", targets=["Melanom"])


def test_target_of_a_protocol_that_holds_nothing_out_is_refused() -> None:
    with pytest.raises(UsageError, match="pooled-group holds no target out"):
        make_split(design(), targets=["d0"])


@pytest.mark.parametrize("protocol", ["lodo", "loso", "zero-shot", "few-shot-1"])
def test_a_single_dataset_cannot_be_held_out(protocol: str) -> None:
    with pytest.raises(DataError, match="there is only '"):
        make_split(only(design(), "d2"), protocol)


def test_two_datasets_of_one_study_are_no_zero_shot() -> None:
    with pytest.raises(DataError, match="zero-shot needs at least 2 studies"):
        make_split(only(design(), "d0", "d1"), "zero-shot")


@pytest.mark.parametrize(("protocol", "column"), [("loco", "cancer_type"), ("lodrug", "drug")])
def test_column_that_a_protocol_needs_must_be_given_and_filled(protocol: str, column: str) -> None:
    frame = design().frame
    with pytest.raises(UsageError, match=f"{protocol} needs to know") as stop:
        make_split(Design(frame.drop(columns=column)), protocol)
    assert f"--{column.replace('_', '-')}" in stop.value.hint
    frame.loc[0, column] = ""
    with pytest.raises(DataError, match="1 of 240 cells have no"):
        make_split(Design(frame), protocol)


def test_target_after_which_one_class_is_left_is_left_out_with_the_reason() -> None:
    frame = design().frame
    frame.loc[frame["dataset"] != "d2", "label"] = "sensitive"
    split = make_split(Design(frame), "lodo")
    assert "d2" not in set(split.table["target"])
    assert "left out: dataset d2: no resistant cell is left to train on" in "\n".join(split.notices)


def test_training_on_one_library_per_label_is_said() -> None:
    frame = design().frame
    of_one = (frame["dataset"] == "d2") & frame["donor"].isin(["d2_p0", "d2_p1"])
    frame = frame[(frame["dataset"] == "d3") | of_one]
    text = "\n".join(make_split(Design(frame), "lodo").notices)
    assert "dataset d3: trained on one group per label" in text


@pytest.mark.parametrize("protocol", [*LEAVING, "few-shot-1"])
def test_confounded_cohort_is_refused(protocol: str) -> None:
    frame = design().frame
    lonely = frame["label"] == "sensitive"
    frame.loc[lonely, ["donor", "sample"]] = "x"
    frame.loc[lonely, "fingerprint"] = "same"
    with pytest.raises(DataError, match="confounded design: all sensitive cells") as stop:
        make_split(Design(frame), protocol)
    assert "add a second sensitive sample" in stop.value.hint


def test_target_is_part_of_what_the_split_hashes() -> None:
    table = make_split(design(), "lodo").table
    table.loc[0, "target"] = "d9"
    with pytest.raises(DataError, match="the rows are not those"):
        check_splits(table)


def test_table_with_further_columns_reads_back(tmp_path: object) -> None:
    path = tmp_path / "splits.tsv.gz"  # type: ignore[operator]
    table = make_split(design(), "few-shot-1").table
    write_splits(table, path)
    pd.testing.assert_frame_equal(read_splits(path), table)


def draws_of(split: Split, target: str) -> list[pd.DataFrame]:
    own = split.table[split.table["target"] == target]
    return [part for _, part in own.groupby("draw")]


@pytest.mark.parametrize("shots", [1, 2, 4, 8])
def test_shots_are_whole_groups_of_each_label(shots: int) -> None:
    for part in draws_of(make_split(design(), f"few-shot-{shots}"), "d2"):
        known = part[(part["dataset"] == "d2") & (part["role"] == "train")]
        assert (known.groupby("label")["group"].nunique() == shots).all()
        assert set(part.loc[part["role"] == "test", "dataset"]) == {"d2"}
        assert len(part[part["role"] == "test"]) == 60 - len(known)
        assert {"d0", "d1", "d3"} <= set(part.loc[part["role"] == "train", "dataset"])


def test_draws_differ_and_there_are_ten() -> None:
    parts = draws_of(make_split(design(), "few-shot-2"), "d0")
    known = {frozenset(p.loc[(p["role"] == "test"), "cell"]) for p in parts}
    assert len(known) == len(parts) == 10


def test_fewer_different_draws_are_said() -> None:
    split = make_split(design(4), "few-shot-1")  # 2 x 2 choices
    assert split.table["draw"].nunique() == 4
    assert "dataset d0: 4 draws instead of 10: no more differ" in "\n".join(split.notices)


def test_draws_of_more_shots_hold_those_of_fewer() -> None:
    few, more = (draws_of(make_split(design(), f"few-shot-{n}"), "d1")[0] for n in (1, 4))
    known = [
        set(p.loc[(p["role"] == "train") & (p["dataset"] == "d1"), "cell"]) for p in (few, more)
    ]
    assert known[0] < known[1]


def test_cells_come_from_the_same_samples_and_are_tested_on_the_same_cells() -> None:
    samples, cells = (
        draws_of(make_split(design(), name), "d2") for name in ("few-shot-2", "few-shot-2-cells")
    )
    for one, other in zip(samples, cells, strict=True):
        tests = [set(part.loc[part["role"] == "test", "cell"]) for part in (one, other)]
        assert tests[0] == tests[1]
        known = other[(other["dataset"] == "d2") & (other["role"] == "train")]
        assert (known.groupby("label")["cell"].nunique() == 2).all()
        assert known["group"].nunique() == 4
        whole = one[(one["dataset"] == "d2") & (one["role"] == "train")]
        assert set(known["cell"]) < set(whole["cell"])


def test_other_targets_change_no_draw() -> None:
    alone = make_split(design(), "few-shot-1", targets=["d2"])
    one = draws_of(make_split(design(), "few-shot-1"), "d2")
    for a, b in zip(one, draws_of(alone, "d2"), strict=True):
        assert set(a.loc[a["role"] == "test", "cell"]) == set(b.loc[b["role"] == "test", "cell"])


def test_donors_with_both_labels_count_for_both() -> None:
    frame = design().frame
    first = frame["cell"].str.endswith("_0")
    frame.loc[first, "label"] = np.where(
        frame.loc[first, "label"] == "sensitive", "resistant", "sensitive"
    )
    for part in draws_of(make_split(Design(frame), "few-shot-1"), "d0"):
        known = part[(part["dataset"] == "d0") & (part["role"] == "train")]
        assert known["group"].nunique() == 1
        assert known["label"].nunique() == 2
        assert part.loc[part["role"] == "test", "label"].nunique() == 2


def test_target_with_too_few_groups_is_left_out_with_the_reason() -> None:
    frame = design().frame
    few = (frame["dataset"] == "d2") & ~frame["donor"].isin(["d2_p0", "d2_p1", "d2_p2", "d2_p3"])
    split = make_split(Design(frame[~few]), "few-shot-2")
    assert "d2" not in set(split.table["target"])
    text = "\n".join(split.notices)
    assert "left out: dataset d2: not evaluable, it has 2 sensitive groups" in text


def test_no_target_with_enough_groups_is_an_error() -> None:
    with pytest.raises(DataError, match=r"dataset d0: not evaluable.* 3 more likewise") as stop:
        make_split(design(4), "few-shot-8")
    assert "--shots" in stop.value.hint


def test_few_draws_are_refused() -> None:
    with pytest.raises(UsageError, match="--draws 3: at least 10"):
        make_split(design(), "few-shot-1", draws=3)


def test_validation_takes_no_labelled_sample_of_the_target() -> None:
    table = make_split(design(), "few-shot-1", validation=True).table
    held = table[table["role"] == "validation"]
    assert (held["dataset"] != held["target"]).all()
    assert (held.groupby("fold")["label"].nunique() == 2).all()
    known = table[(table["dataset"] == table["target"]) & (table["role"] == "train")]
    assert (known.groupby("fold")["group"].nunique() == 2).all()


def test_manifest_that_no_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scdrugmap.evaluation.splits.MOST_ROWS", 9_000)
    with pytest.raises(
        UsageError, match="40 folds of these cells are a table of 9,600 rows"
    ) as stop:
        make_split(design(), "few-shot-1")
    assert "--target" in stop.value.hint
    assert make_split(design(), "few-shot-1", targets=["d0"]).table["draw"].nunique() == 10


def test_fine_tuning_under_zero_shot_is_refused() -> None:
    from scdrugmap.model.load import load_model
    from scdrugmap.train.train import train_predictor

    table = make_split(design(), "zero-shot").table
    with pytest.raises(UsageError, match="leaves the encoder as it is; --strategy lora changes it"):
        train_predictor([], table, fold=0, model=load_model("randproj"), strategy="lora")


def test_training_without_labels_is_refused() -> None:
    from scdrugmap.train.train import train_predictor

    table = make_split(design(), "zero-shot-unlabelled").table
    with pytest.raises(UsageError, match="has no training cell") as stop:
        train_predictor([], table, fold=0, estimator="hvg-logreg")
    assert "--strategy prompt" in stop.value.hint
