"""Published pickles are read as data; whatever would run is refused."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdrugmap import safe_pickle
from scdrugmap.errors import WeightsError
from scdrugmap.safe_pickle import load, loads

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def test_limits_are_as_documented() -> None:
    assert safe_pickle.MAX_BYTES == 64 * 2**20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dictionaries_of_numbers_and_texts_come_back(protocol: int) -> None:
    content = {
        "<pad>": 0,
        "ENSG1": -7,
        3: ["x", 1.5, None, True, (1, 2), []],
        "bytes": b"ab\xff",
        "empty": b"",
        "nested": {"big": 2**70, "text": "é" * 300},
    }
    assert loads(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "number", [np.int16(-7), np.int64(2**40), np.float64(0.25), np.float16(2), np.bool_(True)]
)
def test_numpy_scalars_become_python_numbers(protocol: int, number: Any) -> None:
    found = loads(pickle.dumps({"n": number}, protocol))["n"]
    assert found == number.item()
    assert type(found) is type(number.item())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.zeros((0, 3)),
    ],
    ids=["C", "Fortran", "big-endian", "bool", "empty"],
)
def test_number_arrays_come_back(protocol: int, array: np.ndarray) -> None:
    found = loads(pickle.dumps([array, array], protocol))
    np.testing.assert_array_equal(found[0], array)
    assert found[0].dtype.isnative
    assert found[0] is found[1]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_old_and_new_module_names_of_numpy_are_understood(core: str) -> None:
    data = pickle.dumps({"n": np.int16(5)}, 0)
    names = (b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert any(name in data for name in names)
    for name in names:
        data = data.replace(name, f"{core}.multiarray".encode())
    assert loads(data) == {"n": 5}


def test_ordered_dictionaries_become_dictionaries() -> None:
    assert loads(pickle.dumps(collections.OrderedDict(a=1))) == {"a": 1}


class Runs:
    """Creates a file when it is unpickled the usual way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    path = tmp_path / "dictionary.pkl"
    path.write_bytes(pickle.dumps({"gene": Runs(target)}, protocol))
    with pytest.raises(WeightsError, match=r"it names (posix|nt|os)\.system") as caught:
        load(path)
    assert "nothing in it was run" in caught.value.message
    assert str(path) in caught.value.message
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()  # the payload would have worked


def _global(name: str, rest: bytes = b"") -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + rest + b"."


SCALAR = "numpy.core.multiarray.scalar"
DTYPE = b"cnumpy\ndtype\n(Vi2\nI00\nI01\ntR"

HOSTILE = {
    "a function by itself": _global(SCALAR),
    "a class by itself": _global("numpy.ndarray"),
    "a type by itself": b"cnumpy\ndtype\n(Vi2\ntR.",
    "an unfinished array": b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
    "eval": _global("builtins.eval", b"(V1+1\ntR"),
    "an object of another class": pickle.dumps(collections.Counter("aab")),
    "a set": pickle.dumps({1, 2}),
    "a complex number": pickle.dumps(1j),
    "object arrays": pickle.dumps(np.array([{}, []], object)),
    "structured arrays": pickle.dumps(np.zeros(2, [("a", "i4")])),
    "text arrays": pickle.dumps(np.array(["a", "b"])),
    "a name that is given a state": _global(SCALAR, b"(dVx\nI1\nsb"),
    "attributes of a name": _global(SCALAR, b"N(dV__defaults__\n(tst\x86b"),
    "a byte order that is none": DTYPE + b"(I3\nV?\nNNNI-1\nI-1\nI0\ntb.",
    "a type with fields": DTYPE + b"(I3\nV<\nN(tNI-1\nI-1\nI0\ntb.",
    "a scalar without a type": _global(SCALAR, b"(Vi2\nVab\ntR"),
    "a scalar of two numbers": _global(SCALAR, b"(" + DTYPE + b"C\x04\0\0\0\0tR"),
    "a scalar of half a number": _global(SCALAR, b"(" + DTYPE + b"C\x01\0tR"),
    "persistent ids": b"Pgenes\n.",
    "extension codes": b"\x82\x01.",
    "instances": b"(ibuiltins\nlist\n.",
    "new objects": b"cbuiltins\nobject\n)\x81.",
    "out-of-band buffers": b"\x97.",
    "a memo of gigabytes": b"Nr\xff\xff\xff\x7f.",
    "a text of gigabytes": b"X\xff\xff\xff\x7fabc.",
    "bytes of exabytes": b"\x96" + b"\xff" * 7 + b"\x7f.",
    "keys that are no names": pickle.dumps({1.5: 1}),
    "a list in itself": b"]q\x00h\x00a.",
    "depth": b"(" * 40 + b"t" * 40 + b".",
    "nothing": b"",
    "no pickle": b"<html>not found</html>",
    "cut off": pickle.dumps({"a": 1})[:-4],
    "no end": b"N",
    "a stack that is empty": b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "dictionary.pkl"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(WeightsError, match="holds more than dictionaries"):
        load(path)
    # Nothing a refused pickle did stays behind.
    assert loads(pickle.dumps({"n": np.int16(5)})) == {"n": 5}


def test_large_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 10)
    path = tmp_path / "dictionary.pkl"
    path.write_bytes(pickle.dumps(list(range(20))))
    with pytest.raises(WeightsError, match="at most 10 are read"):
        load(path)
