"""Long work says how far it is."""

from __future__ import annotations

import pytest

from scdrugmap import progress
from scdrugmap.progress import Progress, duration, say


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_first_line_comes_within_seconds_with_rates_and_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("embed", 100) as bar:
        clock[0] += 1
        bar.advance(5, tokens=50)
        assert capsys.readouterr().err == ""
        clock[0] += 4
        bar.advance(5, tokens=50)
        line = capsys.readouterr().err
    assert line == "embed: 10/100 cells, 2 cells/s, 20 tokens/s, about 45 s left\n"


def test_further_lines_come_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("embed", 1000) as bar:
        for _ in range(31):
            clock[0] += 1
            bar.advance(1)
        assert len(capsys.readouterr().err.splitlines()) == 3


def test_cached_steps_count_as_done_but_not_as_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("embed", 100) as bar:
        bar.skip(50)
        clock[0] += 5
        bar.advance(10)
    line, last = capsys.readouterr().err.splitlines()
    assert line == "embed: 60/100 cells, 2 cells/s, about 20 s left"
    assert last == "embed: 60 cells (50 from the cache) in 5 s, 2 cells/s"


def test_nothing_is_said_when_quiet(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    say("hello", quiet=True)
    with Progress("embed", 100, quiet=True) as bar:
        clock[0] += 50
        bar.advance(10)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_no_summary_after_an_error(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("embed", 100)
    bar.__enter__()
    clock[0] += 50
    bar.__exit__(ValueError, ValueError(), None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (600, "10 min"), (7200, "2.0 h"), (3.6e6, "1,000.0 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
