"""Tables survive hostile names and read back as they were written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdrugmap.errors import DataError, UsageError
from scdrugmap.tables import escape, read_table, unescape, write_table

HOSTILE = [
    "a\tb",
    "a\nb",
    "\r",
    "=cmd()",
    "+1",
    "-1",
    "@x",
    "'=x",
    "''",
    "\\t",
    "\\",
    "",
    "ä 𝄞",
    "#",
]


@given(st.text())
def test_any_text_comes_back_as_one_field(text: str) -> None:
    field = escape(text)
    assert not set(field) & set("\t\n\r\x00")
    assert unescape(field) == text


def test_texts_that_differ_behind_a_nul_stay_apart(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cell": ["a\0b", "a\0c", "a"]})
    write_table(frame, tmp_path / "t.tsv")
    assert read_table(tmp_path / "t.tsv")["cell"].tolist() == frame["cell"].tolist()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum"])
def test_no_field_starts_a_formula(text: str) -> None:
    assert escape(text)[0] == "'"


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_a_table_reads_back_as_written(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame(
        {
            "cell": HOSTILE,
            "number": np.linspace(0, 1, len(HOSTILE)) / 3,
            "fold": np.arange(len(HOSTILE)),
        }
    )
    write_table(frame, tmp_path / name)
    back = read_table(tmp_path / name, ["cell"], {"number": "float64", "fold": "int64"})
    pd.testing.assert_frame_equal(back, frame)


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["x"], "b": [0.1]})
    write_table(frame, tmp_path / "1.gz")
    write_table(frame, tmp_path / "2.gz")
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()


def test_missing_numbers_stay_missing(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"p": [0.5, np.nan], "why": ["", None]}), tmp_path / "t")
    back = read_table(tmp_path / "t", numbers={"p": "float64"})
    assert back["p"].isna().tolist() == [False, True]
    assert back["why"].tolist() == ["", ""]


def test_a_word_among_numbers_is_named_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a\tp\nx\t1\ny\toops\n")
    with pytest.raises(DataError, match=r"line 3, column p: 'oops' is no number"):
        read_table(tmp_path / "t", numbers={"p": "float64"})


def test_a_missing_whole_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("fold\tx\n\t1\n")
    with pytest.raises(DataError, match="line 2, column fold: a number is missing"):
        read_table(tmp_path / "t", numbers={"fold": "int64"})


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="the columns c are missing") as caught:
        read_table(tmp_path / "t", ["a", "c"])
    assert caught.value.hint == "it has: a, b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\tb\n1\t2\t3\t4\n1\n\xff", "cannot be read as a table"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-4], "cannot be read as a table"),
        (b"a\tb\n1\t2\n1\t2\t3\n", "cannot be read as a table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t")


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_table(tmp_path / "t")
