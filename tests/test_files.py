"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scdrugmap import files, temporary_names
from scdrugmap.errors import ResourceError, UsageError


def leftovers(folder: Path) -> list[str]:
    return [
        path.name
        for path in folder.iterdir()
        if path.name.endswith(temporary_names.TEMPORARY_SUFFIX)
    ]


def test_a_block_that_succeeds_replaces_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert leftovers(tmp_path) == []


def test_a_block_that_fails_leaves_the_target_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), files.atomic_path(target) as temporary:
        temporary.write_text((tmp_path / "no").read_text())
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_outputs_that_belong_together_appear_together(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("a.txt", "b.txt", "other.txt"))
    with files.together(first, None, second):
        files.write_text(first, "a")
        files.write_text(other, "o")
        assert not first.exists()
        assert other.read_text() == "o"  # it does not belong to them
        files.write_text(second, "b")
    assert (first.read_text(), second.read_text()) == ("a", "b")
    assert leftovers(tmp_path) == []


def test_an_error_between_outputs_that_belong_together_leaves_all_as_they_were(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    second.write_text("old")

    def write() -> None:
        with files.together(first, second):
            files.write_text(second, "new")
            files.write_text(first, (tmp_path / "no").read_text())

    with pytest.raises(FileNotFoundError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert second.read_text() == "old"
    files.write_text(first, "a")  # the block has ended
    assert first.read_text() == "a"


def test_an_output_that_cannot_be_put_in_place_takes_the_new_ones_with_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"

    def write() -> None:
        with files.together(first, second):
            files.write_text(first, "a")
            files.write_text(second, "b")
            second.mkdir()

    with pytest.raises(IsADirectoryError):
        write()
    second.rmdir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space')"),
        RuntimeError("Can't decrement id ref count (errno = 28, error message = 'No space')"),
    ],
)
def test_a_full_disk_is_a_resource_error_that_names_the_file(
    tmp_path: Path, error: Exception
) -> None:
    target = tmp_path / "a.h5ad"
    with (
        pytest.raises(ResourceError, match=r"a\.h5ad: the disk is full \(1,000 bytes needed\)"),
        files.atomic_path(target, n_bytes=1000),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_names_that_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match="input: permission denied"),
        files.atomic_path(tmp_path / "a"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "input")


def test_an_error_that_is_no_matter_of_resources_passes_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), files.atomic_path(tmp_path / "a"):
        raise RuntimeError("something else")


def test_what_a_killed_process_left_is_tidied_up(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    code = (
        "import os, pathlib, sys\nfrom scdrugmap.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == 9
    assert len(leftovers(tmp_path)) == 1
    files.write_text(target, "new")
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: needs /proc")
def test_what_a_killed_process_left_is_tidied_up_before_its_parent_knows(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is not reaped
        suffix = temporary_names.TEMPORARY_SUFFIX
        name = f".a.txt.{temporary_names._MACHINE}-{child.pid}-0123abcd{suffix}"
        (tmp_path / name).touch()
        files.write_text(tmp_path / "a.txt", "new")
        assert leftovers(tmp_path) == []
    finally:
        child.wait()


def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with files.atomic_path(target) as first:
        first.write_text("one")
        with files.atomic_path(target) as second:
            second.write_text("two")
        assert first.exists()
    assert target.read_text() == "one"


def test_the_umask_is_respected(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
        with files.atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("name", ["with space", "ä" * 127, "x" * 255, "quote'\"", "new\nline"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    files.write_text(tmp_path / name, "x")
    assert (tmp_path / name).read_text() == "x"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    with files.atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert leftovers(tmp_path) == []


def test_a_folder_that_exists_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    with files.atomic_folder(target) as folder:
        (folder / "a").write_text("mine")
        target.mkdir()
        (target / "a").write_text("first")
    assert (target / "a").read_text() == "first"
    assert leftovers(tmp_path) == []


def test_a_folder_takes_the_place_of_another_when_told(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    for text in ("first", "second"):
        with files.atomic_folder(target, replace=True) as folder:
            (folder / "a").write_text(text)
    assert (target / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    with files.atomic_folder(target) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(FileNotFoundError):
        files._swap(tmp_path / "nothing", target)
    assert (target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_scratch_files_lie_beside_the_output_and_go(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path / "out.h5ad") as folder:
        (folder / "part").write_text("x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_file_under_construction_is_named_as_what_it_becomes(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "part").write_text("12345")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "part"))

    told = rf"{tmp_path}/entry/part: the disk is full \(more than 5 bytes needed\)"
    with (
        pytest.raises(ResourceError, match=told),
        files.atomic_folder(tmp_path / "entry") as folder,
    ):
        fill(folder)


def test_room_for_a_file_of_holes_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    with open(path, "wb") as handle:
        handle.truncate(2**20)
    files.reserve(path)
    assert path.stat().st_blocks * 512 >= 2**20
    assert path.stat().st_size == 2**20


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("x")
    with pytest.raises(UsageError, match="exists"):
        files.check_output(target, overwrite=False)
    files.check_output(target, overwrite=True)


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path) -> None:
    target, link = tmp_path / "a", tmp_path / "b"
    target.write_text("x")
    link.symlink_to(target)
    with pytest.raises(UsageError, match="both input and output"):
        files.check_output(link, overwrite=True, inputs=[target])


def test_an_output_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        files.check_output(tmp_path, overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no plain file"):
        files.check_output(tmp_path / "pipe", overwrite=True)
    with pytest.raises(UsageError, match="no file name"):
        files.check_output(Path(), overwrite=True)


def test_an_output_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        files.check_output(tmp_path / "no" / "a", overwrite=False)


def test_an_output_that_will_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="bytes are needed"):
        files.check_output(tmp_path / "a", overwrite=False, n_bytes=10**18)


def test_json_has_one_spelling_for_hashing() -> None:
    assert files.canonical_json({"b": 1, "a": [1, "ä"]}) == '{"a":[1,"ä"],"b":1}'
    assert files.hash_json({"a": 1, "b": 2}) == files.hash_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical_json({"a": float("nan")})


def test_a_file_hash_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.hash_file(tmp_path / "a") == expected


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is flushed to the disk, in order."""
    seen: list[Path] = []
    flush = os.fsync

    def note(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: needs /proc")
def test_names_of_new_folders_are_flushed(tmp_path: Path, flushed: list[Path]) -> None:
    files.make_folder(tmp_path / "a/b/c")
    assert sorted(flushed) == [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    flushed.clear()
    files.make_folder(tmp_path / "a/b/c")
    assert flushed == []


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: needs /proc")
def test_everything_within_a_folder_is_flushed_before_it_gets_its_name(
    tmp_path: Path, flushed: list[Path]
) -> None:
    target = tmp_path / "made"
    with files.atomic_folder(target) as folder:
        (folder / "in" / "deep").mkdir(parents=True)
        (folder / "in" / "deep" / "a").touch()
        (folder / "b").touch()
    names = [str(path.relative_to(folder)) for path in flushed if folder in (path, *path.parents)]
    assert sorted(names) == [".", "b", "in", "in/deep", "in/deep/a"]
    assert names.index("in/deep/a") < names.index("in/deep") < names.index("in")
    assert flushed[-2:] == [folder, tmp_path]


def failing(number: int) -> Callable[..., None]:
    """Return a call of the operating system that fails."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_an_output_in_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", failing(errno.EROFS))
    with pytest.raises(ResourceError, match="the file system is read-only"):
        files.check_output(tmp_path / "a", overwrite=False)


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    files.check_different([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UsageError, match="is given for two outputs"):
        files.check_different([tmp_path / "a", tmp_path / "b", tmp_path / "x" / ".." / "a"])


@pytest.mark.parametrize("there", [False, True])
def test_a_name_that_cannot_be_flushed_is_taken_back_if_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    target = tmp_path / "a"
    if there:
        target.write_text("old")
    flush = os.fsync

    def fail_on_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112  what a link leads to
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    with (
        pytest.raises(ResourceError, match="input/output error"),
        files.atomic_path(target) as temporary,
    ):
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if there else [])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_flush_folders_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    files.sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.sync_folder(tmp_path)


def test_a_folder_that_cannot_get_its_name_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "rename", failing(errno.EIO))
    with (
        pytest.raises(ResourceError, match="made: the disk reported an input/output error"),
        files.atomic_folder(tmp_path / "made") as folder,
    ):
        (folder / "a").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_without_bytes_where_none_can_be_counted(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.unlink()
        failing(errno.ENOSPC)()

    with (
        pytest.raises(ResourceError) as caught,
        files.atomic_path(tmp_path / "a") as temporary,
    ):
        write(temporary)
    assert caught.value.message == f"{tmp_path / 'a'}: the disk is full"


def test_holes_stay_where_the_system_cannot_fill_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = tmp_path / "a"
    with open(path, "wb") as handle:
        handle.truncate(1 << 20)
    files.reserve(path)
    assert path.stat().st_blocks == 0


@pytest.mark.parametrize("process", [2**31 - 1, 10**30])
def test_a_number_that_no_process_can_have_is_tidied_up_only_if_it_is_a_number(
    tmp_path: Path, process: int
) -> None:
    prefix = temporary_names.temporary_name(tmp_path / "a").name.rsplit("-", 3)[0]
    left = tmp_path / f"{prefix}-{process}-00000000{temporary_names.TEMPORARY_SUFFIX}"
    left.touch()
    found = list(temporary_names.abandoned(tmp_path / "a"))
    assert found == ([left] if process < 2**31 else [])


def test_a_process_of_which_nothing_can_be_learnt_counts_as_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = temporary_names.temporary_name(tmp_path / "a")
    temporary.touch()
    monkeypatch.setattr(Path, "read_text", failing(errno.ENOENT))
    assert list(temporary_names.abandoned(tmp_path / "a")) == []
