"""The tables between the verbs and what their readers refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.tables import (
    METRIC_COLUMNS,
    PREDICTION_COLUMNS,
    SPLIT_COLUMNS,
    headline,
    protocol_of,
    read_metrics,
    read_predictions,
    read_splits,
    split_id,
    write_metrics,
    write_predictions,
    write_splits,
)

HOSTILE = "=cmd()\t<script>\n../\\x"


def splits() -> pd.DataFrame:
    rows = [
        (f"d{i % 2}", f"c{i}", f"s{i}", f"p{i}", "d", label, fold, f"p{i}", role, "")
        for i, label in enumerate(["sensitive", "resistant", "sensitive", "resistant"])
        for fold, role in enumerate(["test", "train"])
    ]
    table = pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))
    return table.assign(split_id=split_id(table, "pooled-group"))


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": "d0",
            "cell": [f"c{i}" for i in range(3)],
            "sample": "s",
            "model": "m",
            "strategy": "estimator",
            "fold": 0,
            "seed": 0,
            "role": "test",
            "p_sensitive": [0.1, 1 / 3, np.nan],
            "threshold": 0.5,
            "state": ["answered", "answered", "invalid"],
            "reason": ["", "", "no_known_genes"],
        }
    )


def metrics() -> pd.DataFrame:
    rows = [
        (
            "x",
            "m",
            "estimator",
            dataset,
            fold,
            0,
            "cell",
            name,
            at,
            0.3,
            *[np.nan] * 2,
            9,
            4,
            3,
            0,
            "",
        )
        for dataset, fold in (("all", "all"), ("a", "all"), ("all", "0"))
        for name, at in (("auroc", np.nan), ("macro_f1", 0.5))
    ]
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS)).assign(facet="")


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
@pytest.mark.parametrize(
    ("make", "write", "read"),
    [
        (splits, write_splits, read_splits),
        (predictions, write_predictions, read_predictions),
        (metrics, write_metrics, read_metrics),
    ],
)
def test_tables_come_back_unchanged(
    tmp_path: Path,
    name: str,
    make: Callable[[], pd.DataFrame],
    write: Callable[[pd.DataFrame, Path], None],
    read: Callable[[Path], pd.DataFrame],
) -> None:
    write(make(), tmp_path / name)
    pd.testing.assert_frame_equal(read(tmp_path / name), make())


def test_hostile_names_come_back_unchanged(tmp_path: Path) -> None:
    table = splits()
    table.loc[table["cell"] == "c0", "cell"] = HOSTILE
    table["split_id"] = split_id(table, "within")
    write_splits(table, tmp_path / "x.tsv")
    assert HOSTILE in set(read_splits(tmp_path / "x.tsv")["cell"])
    assert len((tmp_path / "x.tsv").read_text().splitlines()) == 1 + len(table)


def test_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write_splits(splits(), tmp_path / name)
    assert (tmp_path / "a.tsv.gz").read_bytes() == (tmp_path / "b.tsv.gz").read_bytes()


def test_columns_are_written_in_their_order(tmp_path: Path) -> None:
    write_predictions(predictions()[list(reversed(PREDICTION_COLUMNS))], tmp_path / "x.tsv")
    header = (tmp_path / "x.tsv").read_text().splitlines()[0]
    assert header == "\t".join(PREDICTION_COLUMNS)


def test_split_id_does_not_depend_on_the_order_of_rows() -> None:
    table = splits()
    shuffled = table.sample(frac=1, random_state=0)
    assert split_id(shuffled, "pooled-group") == table["split_id"].iloc[0]


@pytest.mark.parametrize("column", [c for c in SPLIT_COLUMNS if c not in ("split_id", "fold")])
def test_split_id_depends_on_every_column(column: str) -> None:
    table = splits()
    table.loc[0, column] = "other"
    assert split_id(table, "pooled-group") != splits()["split_id"].iloc[0]


def test_split_id_cannot_be_fooled_by_moving_text_between_fields() -> None:
    one, other = splits(), splits()
    one.loc[0, ["cell", "sample"]] = ["a\nb", "c"]
    other.loc[0, ["cell", "sample"]] = ["a", "b\nc"]
    assert split_id(one, "x") != split_id(other, "x")


def test_split_id_carries_the_protocol() -> None:
    assert protocol_of(splits()) == "pooled-group"


@pytest.mark.parametrize("column", SPLIT_COLUMNS)
def test_missing_column_of_a_split_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "x.tsv"
    splits().drop(columns=column).to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match=f"the columns {column} are missing"):
        read_splits(path)


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_splits(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("role", "tset", "line 4, column role: 'tset' is none of train, validation"),
        ("label", "partial", "line 4, column label: 'partial' is none of sensitive, resistant"),
        ("cell", "", "line 4, column cell: '' is empty"),
        ("cell", "c\\0", r"line 4, column cell: 'c\\x00' holds a NUL character"),
        ("fold", "-1", "line 4, column fold: -1 is no fold"),
        ("fold", "1.5", "line 4, column fold: '1.5' is no whole number"),
        ("fold", "inf", "line 4, column fold: 'inf' is no whole number"),
        ("fold", "x", "line 4, column fold: 'x' is no number"),
        ("fold", "", "line 4, column fold: a number is missing"),
        ("split_id", "within-0", "line 4, column split_id: 'within-0' is another split"),
        ("donor", "p9", "column split_id: the rows are not those that"),
    ],
)
def test_bad_value_in_a_split_is_named_by_row_and_column(
    tmp_path: Path, column: str, value: str, message: str
) -> None:
    table = splits().astype(object)
    table.loc[2, column] = value
    path = tmp_path / "x.tsv"
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match=message):
        read_splits(path)


def test_row_that_stands_twice_in_a_split_is_named() -> None:
    table = pd.concat([splits(), splits().iloc[[3]]], ignore_index=True)
    with pytest.raises(DataError, match="line 10, column cell: dataset d1, cell c1, fold 1 occurs"):
        write_splits(table, Path("never.tsv"))


def test_relabelled_split_is_refused() -> None:
    table = splits()
    table["split_id"] = table["split_id"].str.replace("pooled-group", "within")
    with pytest.raises(DataError, match="the rows are not those that within-") as stop:
        write_splits(table, Path("never.tsv"))
    assert "edited or cut" in stop.value.hint


def test_cut_split_is_refused() -> None:
    with pytest.raises(DataError, match="the rows are not those"):
        write_splits(splits().iloc[:-1], Path("never.tsv"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("p_sensitive", "1.5", "line 3, column p_sensitive: 1.5 is no probability"),
        ("p_sensitive", "-0.1", "line 3, column p_sensitive: -0.1 is no probability"),
        ("p_sensitive", "", "line 3, column p_sensitive: nan is no probability"),
        ("p_sensitive", "inf", "line 3, column p_sensitive: inf is no probability"),
        ("p_sensitive", "0,5", "line 3, column p_sensitive: '0,5' is no number"),
        ("threshold", "7", "line 3, column threshold: 7.0 is not between 0 and 1"),
        ("state", "ok", "line 3, column state: 'ok' is none of answered"),
        ("role", "tests", "line 3, column role: 'tests' is none of"),
        ("model", "", "line 3, column model: '' is empty"),
        ("sample", "c\\0", r"line 3, column sample: 'c\\x00' holds a NUL character"),
        ("seed", "x", "line 3, column seed: 'x' is no number"),
        ("cell", "c0", "line 3, column cell: dataset d0, cell c0, model m"),
    ],
)
def test_bad_value_in_predictions_is_named_by_row_and_column(
    tmp_path: Path, column: str, value: str, message: str
) -> None:
    table = predictions().astype(object)
    table.loc[1, column] = value
    path = tmp_path / "x.tsv"
    table.to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_cell_without_answer_needs_no_probability(tmp_path: Path) -> None:
    write_predictions(predictions(), tmp_path / "x.tsv")
    assert np.isnan(read_predictions(tmp_path / "x.tsv")["p_sensitive"].iloc[2])


def test_empty_predictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    predictions().iloc[:0].to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match="has no rows"):
        read_predictions(path)


def test_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_predictions(path)


def test_bad_level_of_metrics_is_named(tmp_path: Path) -> None:
    table = metrics()
    table.loc[1, "level"] = "patient"
    with pytest.raises(DataError, match="line 3, column level: 'patient'"):
        write_metrics(table, tmp_path / "x.tsv")


def test_headline_takes_the_rows_over_all_datasets() -> None:
    assert set(headline(metrics())["dataset"]) == {"all"}
    assert len(headline(metrics())) == 2


def test_headline_of_a_single_dataset_has_its_name() -> None:
    one = metrics()
    one = one[one["dataset"] == "a"]
    assert len(headline(one)) == 2


def test_rows_of_a_facet_are_no_headline() -> None:
    part = metrics().assign(facet="cancer_type=Melanoma")
    assert len(headline(pd.concat([metrics(), part]))) == 2


def test_metrics_without_facets_are_read() -> None:
    assert len(headline(metrics().drop(columns="facet"))) == 2
