"""Machines that are short of something, or set up oddly: cases 90 to 104."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from scdrugmap.temporary_names import TEMPORARY_SUFFIX

ODD_NAMES = [
    "with space.h5ad",
    "quote'\"$(x)`y`.h5ad",
    "line\nbreak.h5ad",
    "ä 𝄞 名.h5ad",
    "-dash.h5ad",
    "x" * 250 + ".h5ad",
]


@pytest.fixture
def embed(child, tmp_path):
    """Embed a file; nothing but the output may be left beside it."""

    def run(source: Path, output: Path, *options: object, **how):
        before = set(output.parent.iterdir())
        ended = child.cli("embed", source, "--model", "randproj", *options, "-o", output, **how)
        left = {p.name for p in set(output.parent.iterdir()) - before}
        assert left <= {output.name}, left
        if ended.code == 0:
            assert anndata.read_h5ad(output).obsm["X_randproj"].shape[0] == 20
        else:
            assert not left
            assert ended.err.splitlines()[-2].startswith("Error: ") or ended.code == 130
        return ended

    return run


@pytest.mark.case(90)
def test_input_in_a_folder_that_is_read_only(embed, make, tmp_path):
    folder = tmp_path / "sealed"
    folder.mkdir()
    path = make.h5ad("sealed/cells.h5ad")
    path.chmod(0o444)
    folder.chmod(0o555)
    assert embed(path, tmp_path / "o.h5ad").code == 0


@pytest.mark.case(91)
def test_output_in_a_folder_that_is_read_only_is_refused_before_the_work(embed, path, tmp_path):
    folder = tmp_path / "sealed"
    folder.mkdir()
    folder.chmod(0o555)
    ended = embed(path, folder / "o.h5ad")
    assert ended.code == 5
    assert f"{folder}: permission denied" in ended.err.replace("\n", "")
    assert "choose another place" in ended.err
    assert "cells/s" not in ended.err


@pytest.mark.case(92)
def test_cache_that_is_read_only_is_not_needed(embed, path, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o555)
    ended = embed(path, tmp_path / "o.h5ad", SCDRUGMAP_CACHE=str(cache))
    assert ended.code == 0
    assert "cannot be written to: finished work is not kept" in " ".join(ended.err.split())


@pytest.mark.case(93)
@pytest.mark.parametrize("size", [0, 1, 1000, 20_000])
def test_file_that_may_not_grow_leaves_no_output(embed, path, tmp_path, size):
    """As on a full disk: every write beyond so many bytes fails, in the cache too."""
    ended = embed(path, tmp_path / "o.h5ad", "--no-cache", limits={"fsize": size})
    assert ended.code == 5
    assert "o.h5ad" in ended.err or str(tmp_path) in ended.err
    assert "the file would exceed the allowed size" in " ".join(ended.err.split())
    assert embed(path, tmp_path / "o.h5ad").code == 0


@pytest.mark.case(94)
def test_output_that_exists(child, path, tmp_path):
    output = tmp_path / "o.h5ad"
    output.write_bytes(b"precious")
    ended = child.cli("embed", path, "--model", "randproj", "-o", output)
    assert ended.code == 2
    assert f"{output} exists" in ended.err
    assert "add --overwrite" in ended.err
    assert output.read_bytes() == b"precious"


@pytest.mark.case(95)
@pytest.mark.parametrize("way", ["same", "relative", "link"])
def test_output_that_is_the_input(child, path, tmp_path, way):
    before = path.read_bytes()
    output = {"same": path, "relative": Path("./cells.h5ad"), "link": tmp_path / "link.h5ad"}[way]
    if way == "link":
        output.symlink_to(path)
    command = ("embed", path, "--model", "randproj", "-o", output, "--overwrite")
    ended = child.cli(*command, folder=tmp_path)
    assert ended.code == 2
    assert "is both input and output" in ended.err
    assert path.read_bytes() == before


@pytest.mark.case(96)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_paths_work(embed, make, child, tmp_path, name):
    """Spaces, quotes, line breaks, 255 bytes, other alphabets; relative; with a slash too many."""
    path, folder = make.h5ad("plain.h5ad"), tmp_path / "out put"
    folder.mkdir()
    path = path.rename(tmp_path / name)
    assert embed(path, folder / name).code == 0
    ended = child.cli("check", f"./{name}", "--no-models", folder=tmp_path)
    assert ended.code == 0
    assert "\nbreak" not in ended.out
    ended = child.cli("check", f"{path}/", "--no-models")
    assert ended.code in (0, 2)


@pytest.mark.case(97)
def test_home_that_is_unset(embed, path, tmp_path):
    drop = ("HOME", "XDG_CACHE_HOME", "SCDRUGMAP_CACHE", "SCDRUGMAP_WEIGHTS", "SCDRUGMAP_DATA")
    assert embed(path, tmp_path / "o.h5ad", "--no-cache", drop=drop).code == 0


@pytest.mark.case(98)
def test_language_of_plain_ascii(process, make, tmp_path):
    path = make.h5ad().rename(tmp_path / "é 名.h5ad")
    for more in ({}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        ended = process("check", path, "--no-models", LANG="C", LC_ALL="C", **more)
        assert ended.code == 0, ended.err
        assert "20 cells" in ended.out


@pytest.mark.case(99)
def test_temporary_folder_on_another_device(embed, make, tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        other = tmp_path / "tmp"
        other.mkdir()
    before = set(other.iterdir())
    path = make.h5ad(X=sparse.csc_matrix(make.counts()))  # turned into rows by temporary files
    assert embed(path, tmp_path / "o.h5ad", TMPDIR=str(other)).code == 0
    assert not [p for p in set(other.iterdir()) - before if TEMPORARY_SUFFIX in p.name]


@pytest.mark.case(100)
def test_umask_is_respected(embed, path, tmp_path):
    assert embed(path, tmp_path / "o.h5ad", limits={"umask": 0o077}).code == 0
    assert stat.S_IMODE((tmp_path / "o.h5ad").stat().st_mode) == 0o600
    assert embed(path, tmp_path / "p.h5ad", limits={"umask": 0o022}).code == 0
    assert stat.S_IMODE((tmp_path / "p.h5ad").stat().st_mode) == 0o644


@pytest.mark.case(101)
@pytest.mark.parametrize("year", [1970, 2038, 2100])
def test_clock_that_is_wrong(embed, path, tmp_path, year):
    seconds = {1970: 60, 2038: 2**31 + 60, 2100: 4_102_444_800}[year]
    os.utime(path, (seconds, seconds))
    ended = embed(path, tmp_path / "o.h5ad", limits={"clock": seconds})
    assert ended.code == 0
    again = embed(path, tmp_path / "p.h5ad")
    assert again.code == 0
    first, second = (anndata.read_h5ad(tmp_path / name) for name in ("o.h5ad", "p.h5ad"))
    assert np.array_equal(first.obsm["X_randproj"], second.obsm["X_randproj"])


@pytest.mark.case(102)
@pytest.mark.parametrize("number", [64, 12])
def test_few_files_may_be_open(embed, path, tmp_path, number):
    ended = embed(path, tmp_path / "o.h5ad", limits={"nofile": number})
    assert ended.code in (0, 5) if number < 64 else ended.code == 0
    if ended.code == 5:
        assert "too many open files" in ended.err


@pytest.mark.case(103)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_at_the_last_moment_ends_cleanly(child, path, tmp_path, number):
    """The signal comes when the finished file is about to get its name; or nobody reads on."""
    output = tmp_path / "o.h5ad"
    command = ("embed", path, "--model", "randproj", "--no-cache", "-o", output)
    ended = child.cli(*command, limits={"signal": number})
    assert ended.code == 130
    assert "Interrupted. Run the same command again" in ended.err
    assert {p.name for p in tmp_path.iterdir()} <= {"cells.h5ad", "o.h5ad"}
    if output.exists():
        assert anndata.read_h5ad(output).n_obs == 20
    assert child.cli(*command, "--overwrite").code == 0
    ended = child.cli("check", path, "--no-models", limits={"closed_stdout": 1})
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.case(104)
def test_network_that_leads_nowhere(embed, path, tmp_path):
    rubbish = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "nonsense://[::")
    rubbish |= {name.lower(): value for name, value in rubbish.items()}
    assert embed(path, tmp_path / "o.h5ad", **rubbish).code == 0
