"""Readers of text and pickles bear any bytes: they take them or refuse them with our own errors.

The short form of ``guided.py``: the same readers, fed with damage at random.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
sys.path.insert(0, HERE)

from guided_targets import TARGETS  # noqa: E402

N_MUTANTS = 60


def damage(data: bytes, draw: random.Random) -> bytes:
    """Change some bytes, cut or double a piece."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        begin = draw.randrange(len(changed) + 1)
        end = min(len(changed), begin + draw.choice((0, 1, 1, 4, 64)))
        piece = draw.choice(
            (b"", draw.randbytes(1), b"\x00", b'"', b"\n", bytes(changed[begin:end]) * 2)
        )
        changed[begin:end] = piece
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_what_is_sound_and_bears_what_is_not(name: str, tmp_path: Path) -> None:
    target, draw = TARGETS[name], random.Random(0)
    read = target.open(tmp_path)
    seeds = target.seeds()
    assert all(target.read(read, seed) for seed in seeds)
    taken = [target.read(read, damage(draw.choice(seeds), draw)) for _ in range(N_MUTANTS)]
    assert not all(taken)


@pytest.mark.parametrize(
    "name", [name for name, target in TARGETS.items() if "json" in target.modules]
)
def test_json_nested_a_hundred_thousand_levels_deep_is_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    read = target.open(tmp_path)
    for deep in (b"[" * 100_000, b'{"format":' * 100_000, b'{"attributes":' + b"[" * 100_000):
        assert not target.read(read, deep)


@pytest.mark.parametrize(
    "file",
    ["~nobody-of-that-name/a.h5ad", "~\0/a.h5ad", "a" * 300, "a" * 200_000, "a\0b"],
    ids=["home of nobody", "home with a NUL", "long name", "long field", "NUL"],
)
def test_a_path_that_is_none_is_an_error_of_the_samplesheet(file: str, tmp_path: Path) -> None:
    target = TARGETS["samplesheet"]
    assert not target.read(target.open(tmp_path), f"file,label\n{file},R\n".encode())


@pytest.mark.parametrize("path", ["~nobody-of-that-name/a.h5ad", r'"~\0/a.h5ad"'])
def test_a_path_that_is_none_is_an_error_of_the_configuration(path: str, tmp_path: Path) -> None:
    target = TARGETS["config"]
    text = f"data: [{path}]\nlabel: l\ngroup: g\nmodels: [knn]\n"
    assert not target.read(target.open(tmp_path), text.encode())


@pytest.mark.parametrize("name", ["config", "recipe"])
@pytest.mark.parametrize(
    "text",
    [
        "2020-99-99",
        "!!int ''",
        "!!float x",
        "!!binary é",
        "{a: !!timestamp x}",
        "[" * 1_000,
        "? [a]",
        "? {a: b}",
        "data: {? {a: b} : c}",
        "data: &a [*a]",
        "data: &a {b: *a}",
    ],
)
def test_yaml_that_only_looks_sound_is_refused(name: str, text: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    assert not target.read(target.open(tmp_path), text.encode())
