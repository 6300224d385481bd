"""Every way of tampering with weights that we know of has a test: the list, to be counted.

Must hold: each ends in one line and exit code 4 (or 5 where memory is what is missing), nothing in
the file is run, nothing outside the folder is opened, nothing is written.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_inputs.test_weight_files import BAD_ARRAYS, BAD_PICKLES, BAD_SAFETENSORS
from tests.bad_inputs.test_weight_sets import BOMBS, SPOILT_SETS
from tests.bad_inputs.test_weights import CASES

TABLES = {
    "published": CASES,
    "safetensors": BAD_SAFETENSORS,
    "array": BAD_ARRAYS,
    "pickle": BAD_PICKLES,
    "import": SPOILT_SETS,
    "bomb": BOMBS,
}

TAMPERING = {
    # what is done: (table, its case), or ("test", file, name)
    "pickle with os.system in a torch file": ("published", "pickle payload"),
    "pickle with os.system as the file": ("published", "old pickle payload"),
    "pickle with os.system in a dictionary": ("pickle", "code"),
    "whole nn.Module": ("published", "whole saved model"),
    "npy of objects": ("array", "objects"),
    "code in an npy header": ("array", "code in the header"),
    "npz in place of npy": ("array", "several arrays"),
    "npy shape that overflows": ("array", "shape that overflows"),
    "million tuples as a key, torch": ("published", "deep tuples"),
    "million tuples as a key, old torch": ("published", "deep tuples in the old format"),
    "million tuples as a key, pickle": ("pickle", "deep tuples as a key"),
    "memo of gigabytes": ("pickle", "memo of gigabytes"),
    "safetensors truncated": ("safetensors", "truncated"),
    "safetensors with trailing bytes": ("safetensors", "trailing bytes"),
    "safetensors with a huge header": ("safetensors", "header of 2^63 bytes"),
    "safetensors with overlapping offsets": ("safetensors", "overlapping"),
    "safetensors with a hole": ("safetensors", "hole"),
    "safetensors whose shape overflows": ("safetensors", "shape that overflows"),
    "safetensors with a key twice": ("safetensors", "key given twice"),
    "safetensors with an infinite offset": ("safetensors", "offset that is infinite"),
    "safetensors with 300,000 tensors": ("safetensors", "300,000 tensors"),
    "safetensors with 50,001 tensors": ("safetensors", "50,001 tensors"),
    "one bit flipped in an import": ("import", "one flipped bit"),
    "one bit flipped in a published file": (
        "test",
        "test_weight_sets.py",
        "test_one_flipped_bit_of_published_tensors_is_another_set",
    ),
    "NaN": ("published", "NaN"),
    "infinity": ("published", "infinite"),
    "infinite once it has the network's type": ("published", "infinite once in 32 bits"),
    "NaN in a type of 8 bits": ("published", "NaN in 8 bits"),
    "expanded tensor": ("bomb", "expanded tensor"),
    "many views of one tensor": ("published", "many views of one tensor"),
    "missing key": ("published", "missing key"),
    "extra key": ("published", "extra key"),
    "key in another case": ("published", "key in another case"),
    "wrong shape": ("published", "wrong shape"),
    "several wrong shapes, all listed": ("published", "several wrong shapes"),
    "integer for a fraction": ("published", "integers for fractions"),
    "complex for a fraction": ("published", "complex for fractions"),
    "scalar for (D,)": ("published", "scalar for a vector"),
    "vocabulary of another length": ("published", "vocabulary of another length"),
    "vocabulary of another length, imported": ("import", "vocabulary of another length, imported"),
    "vocabulary of another order": ("import", "vocabulary of another order"),
    "vocabulary that names a gene twice": ("published", "vocabulary that names a gene twice"),
    "hash that differs from the pin": ("import", "hash that is not the file's"),
    "unknown hash": ("import", "unknown hash"),
    "right name, wrong model, imported": ("import", "right name, wrong model"),
    "right name, wrong model, published": ("published", "tensors of another model"),
    "tensors of two sets swapped": (
        "test",
        "test_weight_sets.py",
        "test_two_sets_whose_tensors_were_swapped_are_refused",
    ),
    "folders of two sets swapped": (
        "test",
        "test_weight_sets.py",
        "test_two_sets_whose_folders_were_swapped_are_not_found_by_the_wrong_name",
    ),
    "symlink into another user's folder": ("published", "link into another user's folder"),
    "symlink into another user's import": ("import", "links to another user's import"),
    "manifest path ../": ("import", "path ../"),
    "manifest path that is absolute": ("import", "absolute path"),
    "name of a set with ../": (
        "test",
        "test_weight_sets.py",
        "test_weights_are_not_kept_under_a_name_that_is_a_path",
    ),
    "zip bomb": ("bomb", "zip bomb"),
    "configuration of a network of terabytes": ("bomb", "huge network"),
    "file names that collide": ("published", "names that differ in case only"),
    "names in a manifest that collide": ("import", "names that collide"),
    "file replaced, overwritten or removed between check and use": (
        "test",
        "test_weight_sets.py",
        "test_a_file_that_changes_between_hash_and_use_is_refused",
    ),
    "file changed between two reads": (
        "test",
        "test_weight_sets.py",
        "test_a_file_that_changes_between_two_reads_is_refused",
    ),
    "mapped file changed before it is used": (
        "test",
        "test_weight_sets.py",
        "test_a_file_that_changes_before_the_network_is_built_is_refused",
    ),
    "file outside the folder opened on the way": (
        "test",
        "test_weight_sets.py",
        "test_bombs_cost_little_and_nothing_outside_the_folder_is_opened",
    ),
    "pipe in place of a file": ("published", "pipe"),
}


def test_at_least_thirty_ways_are_tried() -> None:
    assert len(TAMPERING) >= 30
    assert len({*TAMPERING.values()}) == len(TAMPERING)


@pytest.mark.parametrize("name", TAMPERING)
def test_every_way_has_its_case(name: str) -> None:
    where, *case = TAMPERING[name]
    if where == "test":
        file, test = case
        assert f"def {test}(" in (Path(__file__).parent / file).read_text("utf-8")
    else:
        assert case[0] in TABLES[where]
