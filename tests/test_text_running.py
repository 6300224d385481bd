"""Asking a server: tries, rates, money, kept replies and the pool that does it all at once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.run.store import Store
from scdrugmap.text.budget import (
    FREE,
    Budget,
    BudgetUsedUp,
    Price,
    Usage,
    estimated_tokens,
    most_tokens,
)
from scdrugmap.text.dispatch import FAILURES_IN_A_ROW, Dispatcher
from scdrugmap.text.kept import KeptReplies
from scdrugmap.text.ledger import Ledger
from scdrugmap.text.limits import Bucket
from scdrugmap.text.patience import Patience, StoppedError, TemporaryError, persist

QUICK = Patience(first_wait_s=0.001)


class Flaky:
    """Fails a number of times, then succeeds."""

    def __init__(self, failures: int) -> None:
        self.left, self.calls = failures, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise TemporaryError(f"failure {self.calls}")
        return "done"


def try_hard(attempt: Flaky, patience: Patience = QUICK) -> str:
    return persist(attempt, patience, jitter=random.Random(0), stop=threading.Event())


def test_attempt_is_repeated_until_it_succeeds() -> None:
    attempt = Flaky(5)
    assert try_hard(attempt) == "done"
    assert attempt.calls == 6


def test_last_failure_is_raised_after_all_tries() -> None:
    attempt = Flaky(100)
    with pytest.raises(TemporaryError, match="failure 6"):
        try_hard(attempt)
    assert attempt.calls == 6


def test_no_attempt_begins_after_the_total_time() -> None:
    attempt = Flaky(100)
    with pytest.raises(TemporaryError):
        try_hard(attempt, Patience(first_wait_s=10, total_s=0.0))
    assert attempt.calls == 1


def test_waits_double_are_jittered_from_zero_and_capped() -> None:
    patience = Patience()
    assert [patience.wait_s(n, 1.0, None) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert patience.wait_s(3, 0.0, None) == 0
    assert patience.wait_s(3, 0.5, None) == 2
    assert patience.wait_s(1, 0.5, 20.0) == 20  # what the server asks for is the least
    assert patience.wait_s(1, 0.5, 900.0) == 60  # and no server makes a run sleep for long


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        persist(Flaky(9), Patience(first_wait_s=30), jitter=random.Random(1), stop=stop)
    assert time.monotonic() - began < 5


def test_bucket_spends_ahead_and_waits_for_what_is_too_much() -> None:
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])  # one a second, six at once
    assert [bucket.take(1) for _ in range(6)] == [0] * 6
    assert bucket.take(1) == pytest.approx(1)
    assert bucket.take(1) == pytest.approx(2)
    now[0] = 2.0
    assert bucket.take(1) == pytest.approx(1)
    now[0] = 1000.0
    assert bucket.take(6) == 0  # an idle hour gives no larger burst
    assert bucket.take(1) == pytest.approx(1)


def test_amount_above_a_whole_bucket_passes_after_its_time() -> None:
    bucket = Bucket(60, clock=lambda: 0.0)
    assert bucket.take(66) == pytest.approx(60)


def test_bucket_without_limit_waits_only_when_the_server_says_so() -> None:
    now = [0.0]
    bucket = Bucket(None, clock=lambda: now[0])
    assert bucket.take(10**9) == 0
    bucket.correct(5, 10)
    assert bucket.take(1) == 0
    bucket.correct(0, 3)
    assert bucket.take(1) == pytest.approx(3)
    now[0] = 3.5
    assert bucket.take(1) == 0


def test_budget_counts_what_is_under_way_and_gives_back_what_was_not_used() -> None:
    budget = Budget(1.0, Price(1.0, 2.0))
    most = Usage(100_000, 100_000)  # 0.3 USD
    held = [budget.reserve(most) for _ in range(3)]
    with pytest.raises(BudgetUsedUp, match=r"budget of 1 USD is used up: 0\.0000 USD are spent"):
        budget.reserve(most)
    for reserved in held:
        budget.settle(reserved, Usage(50_000, 0))
    assert budget.spent == pytest.approx(0.15)
    assert budget.usage == Usage(150_000, 0)
    budget.reserve(most)


@pytest.mark.parametrize("most", [float("nan"), -1.0])
def test_budget_that_nothing_exceeds_is_refused(most: float) -> None:
    with pytest.raises(UsageError, match="a budget is 0 USD or more"):
        Budget(most, Price(1.0, 1.0))


def test_budget_without_limit_only_counts() -> None:
    budget = Budget(None, Price(1.0, 1.0))
    budget.settle(budget.reserve(Usage(1e9, 1e9)), Usage(1e6, 1e6))
    assert budget.spent == pytest.approx(2)


_SPENDS = """
import sys
from pathlib import Path
from scdrugmap.text.budget import Budget, BudgetUsedUp, Price, Usage
from scdrugmap.text.ledger import Ledger
budget = Budget(1.0, Price(1.0, 1.0), Ledger(Path(sys.argv[1])))
paid = 0
try:
    while True:
        budget.settle(budget.reserve(Usage(40_000, 0)), Usage(20_000, 0))
        paid += 1
except BudgetUsedUp:
    print(paid)
"""


def test_processes_that_share_a_ledger_share_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "spent.json"
    processes = [
        subprocess.Popen([sys.executable, "-c", _SPENDS, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paid = [int(process.communicate()[0]) for process in processes]
    assert Ledger(path).spent == pytest.approx(0.02 * sum(paid))
    assert 0.94 < Ledger(path).spent <= 1.0


def test_what_a_killed_process_had_set_aside_counts_as_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "spent.json")
    Budget(1.0, Price(1.0, 1.0), ledger).reserve(Usage(700_000, 0))
    again = Budget(1.0, Price(1.0, 1.0), ledger)
    with pytest.raises(BudgetUsedUp, match=r"0\.7000 USD are spent"):
        again.reserve(Usage(400_000, 0))
    again.settle(again.reserve(Usage(300_000, 0)), Usage())
    assert ledger.spent == pytest.approx(0.7)


def test_requests_that_cost_nothing_need_no_ledger(tmp_path: Path) -> None:
    budget = Budget(1.0, FREE, Ledger(tmp_path / "spent.json"))
    budget.settle(budget.reserve(Usage(1e9, 0)), Usage(1e9, 0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{}", '{"spent_usd": "x"}', '{"spent_usd": NaN}'])
def test_a_ledger_that_says_nothing_stops_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spent.json"
    path.write_text(text)
    with pytest.raises(ResourceError, match=r"spent\.json"):
        Budget(1.0, Price(1.0, 1.0), Ledger(path)).reserve(Usage(1, 1))


def test_estimate_counts_genes_by_number_and_other_text_by_length() -> None:
    genes = ["MET", "TP53"] * 25
    text = " ".join(genes)
    tokens = estimated_tokens(["x" * 400, text], 50, len(text))
    assert tokens == pytest.approx(50 * 3.4 + 100 + 8)
    assert most_tokens(["é" * 10]) == 24


def test_reply_is_kept_by_all_that_it_depends_on(tmp_path: Path) -> None:
    kept = KeptReplies(Store(tmp_path))
    kept.put({"prompt": "a", "model": "m"}, {"text": "1"})
    assert kept.get({"model": "m", "prompt": "a"}) == {"text": "1"}
    assert kept.get({"model": "n", "prompt": "a"}) is None
    kept.put({"prompt": "a", "model": "m"}, {"text": "2"})
    assert kept.get({"model": "m", "prompt": "a"}) == {"text": "2"}


def test_clearing_the_cache_spares_replies_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(tmp_path))
    kept = KeptReplies(Store(tmp_path))
    kept.put({"model": "m"}, {"text": "1"})
    assert cli("cache", "clear", "--yes").code == 0
    assert kept.get({"model": "m"}) == {"text": "1"}
    assert cli("cache", "clear", "--answers", "--yes").code == 0
    assert kept.get({"model": "m"}) is None


def test_nothing_is_kept_without_a_store() -> None:
    for kept in (KeptReplies(None), KeptReplies(Store.disabled())):
        kept.put({"a": 1}, {})
        assert kept.get({"a": 1}) is None
        assert not kept.writable


def test_results_come_with_their_tasks_whatever_the_order_they_end_in() -> None:
    def work(task: int) -> int:
        time.sleep(0.02 if task % 3 == 0 else 0)
        return task * task

    found = dict(Dispatcher(work, 4, threading.Event()).run(range(20)))
    assert found == {task: task * task for task in range(20)}


def test_no_more_than_the_concurrency_run_at_a_time() -> None:
    running, most = set(), []
    lock = threading.Lock()

    def work(task: int) -> None:
        with lock:
            running.add(task)
            most.append(len(running))
        time.sleep(0.005)
        with lock:
            running.discard(task)

    list(Dispatcher(work, 3, threading.Event()).run(range(12)))
    assert max(most) == 3


def test_failed_task_is_yielded_with_its_failure_and_the_others_go_on() -> None:
    def work(task: int) -> int:
        if task == 2:
            raise TemporaryError("no reply")
        return task

    found = dict(Dispatcher(work, 2, threading.Event()).run(range(5)))
    assert isinstance(found.pop(2), TemporaryError)
    assert found == {0: 0, 1: 1, 3: 3, 4: 4}


def test_failures_in_a_row_stop_the_run_but_not_failures_among_successes() -> None:
    def sometimes(task: int) -> int:
        if task % 2:
            raise TemporaryError("no reply")
        return task

    assert len(list(Dispatcher(sometimes, 1, threading.Event()).run(range(100)))) == 100
    started = []

    def never(task: int) -> int:
        started.append(task)
        raise TemporaryError("status 503")

    stop = threading.Event()
    with pytest.raises(ResourceError, match="20 requests in a row failed, the last one with: stat"):
        list(Dispatcher(never, 1, stop).run(range(100)))
    assert len(started) == FAILURES_IN_A_ROW
    assert stop.is_set()


def test_fatal_error_is_raised_after_what_was_under_way_is_collected() -> None:
    slow = threading.Event()

    def work(task: int) -> int:
        if task == 1:
            slow.set()
            raise BudgetUsedUp("used up")
        slow.wait(5)
        return task

    results = Dispatcher(work, 2, threading.Event()).run(range(100))
    assert next(results) == (0, 0)
    with pytest.raises(BudgetUsedUp):
        next(results)


def test_reader_who_loses_interest_stops_the_waits() -> None:
    stop = threading.Event()
    results = Dispatcher(lambda task: task, 2, stop).run(range(100))
    next(results)
    results.close()
    assert stop.is_set()
