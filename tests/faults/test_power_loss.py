"""The model of a disk that loses what was not flushed says so, whatever is left out.

The commands that write are held against it in `test_writing.py`: see `power_loss.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from power_loss import Disk

GOOD = [
    *(("create", "/d/.a.scdrugmap-tmp"), ("write", "/d/.a.scdrugmap-tmp")),
    *(("fsync", "/d/.a.scdrugmap-tmp"), ("from", "/d/.a.scdrugmap-tmp"), ("rename", "/d/a")),
    ("fsync", "/d"),
]
FOLDER = [
    *(("mkdir", "/d/.f.scdrugmap-tmp"), ("mkdir", "/d/.f.scdrugmap-tmp/in")),
    *(("create", "/d/.f.scdrugmap-tmp/in/a"), ("write", "/d/.f.scdrugmap-tmp/in/a")),
    *(("fsync", "/d/.f.scdrugmap-tmp/in/a"), ("fsync", "/d/.f.scdrugmap-tmp/in")),
    *(("fsync", "/d/.f.scdrugmap-tmp"), ("from", "/d/.f.scdrugmap-tmp"), ("rename", "/d/f")),
    ("fsync", "/d"),
]


@pytest.mark.parametrize("calls", [GOOD, FOLDER, [*GOOD, *FOLDER]])
def test_the_model_takes_what_is_safe(calls: list[tuple[str, str]]) -> None:
    disk = Disk("/d")
    disk.replay(calls)
    assert disk.problems == []


@pytest.mark.parametrize("calls", [GOOD, FOLDER])
def test_the_model_misses_every_flush_that_is_left_out(calls: list[tuple[str, str]]) -> None:
    for number, (kind, _) in enumerate(calls):
        if kind == "fsync":
            disk = Disk("/d")
            disk.replay([*calls[:number], *calls[number + 1 :]])
            assert disk.problems, f"without call {number}"


REPLACED = [
    *(*FOLDER, *FOLDER[:7], ("from", "/d/f"), ("rename", "/d/.o.scdrugmap-tmp")),
    *(("from", "/d/.f.scdrugmap-tmp"), ("rename", "/d/f")),
    *(("fsync", "/d"), ("unlink", "/d/.o.scdrugmap-tmp/in/a"), ("unlink", "/d/.o.scdrugmap-tmp")),
]


def test_the_model_takes_the_replacement_of_a_folder() -> None:
    disk = Disk("/d")
    disk.replay(REPLACED)
    assert disk.problems == []


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        (
            [*GOOD[:3], GOOD[1], *GOOD[3:]],
            "renamed before it was flushed: .a.scdrugmap-tmp",
        ),
        (
            [*GOOD[:3], ("map", "/d/.a.scdrugmap-tmp"), *GOOD[3:]],
            "renamed before it was flushed: .a.scdrugmap-tmp",
        ),
        ([*GOOD, ("write", "/d/a")], "write in place: a"),
        ([*GOOD[:-1], *FOLDER], "f gets its name before . is flushed, which names a"),
        ([("mkdir", "/d/new"), ("fsync", "/d/new")], "names not flushed: .: ['new']"),
        (
            [*REPLACED[:-3], *REPLACED[-2:], ("fsync", "/d")],
            ".o.scdrugmap-tmp goes before . is flushed",
        ),
    ],
)
def test_the_model_says_what_is_wrong(calls: list[tuple[str, str]], problem: str) -> None:
    disk = Disk("/d")
    disk.replay(calls)
    assert problem in disk.problems
