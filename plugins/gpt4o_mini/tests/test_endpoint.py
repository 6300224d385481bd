"""What each failure of a server means, against a real server with faults put before it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultProxy
from gpt_places import KEY

from scdrugmap.errors import PluginError, ResourceError, UsageError
from scdrugmap.run.store import Store
from scdrugmap.text.budget import Price, Usage
from scdrugmap.text.contract import Answer, Asking, Question
from scdrugmap.text.patience import Patience
from scdrugmap_plugin_gpt4o_mini import Options
from scdrugmap_plugin_gpt4o_mini.endpoint import Endpoint, Place
from scdrugmap_plugin_gpt4o_mini.model import build
from scdrugmap_plugin_gpt4o_mini.session import Session

QUICK = Patience(first_wait_s=0.01, most_wait_s=0.05)
GENES = ("MET", "KRT76", "GPR17", "TSC1", "RDH10")


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setenv("TEST_KEY", KEY)
    store = Store(tmp_path / "cache")
    return Asking(
        store=store,
        key_variable="TEST_KEY",
        patience=QUICK,
        quiet=True,
        concurrency=1,
        timeout_s=20,
    )


def cells(n: int) -> list[Question]:
    """Ask about cells whose prompts differ."""
    return [Question(f"cell{i}", GENES[i % 5 :] + GENES[: i % 5] + (f"TAF{i}",)) for i in range(n)]


def ask(proxy: FaultProxy, asking: Asking, n: int = 1, **options: object) -> list[Answer]:
    model = build(Options(base_url=proxy.base_url, **options))
    return model.classify(cells(n), asking)


@pytest.fixture
def known(proxy: FaultProxy, asking: Asking) -> FaultProxy:
    """Give the proxy after the capabilities were probed, so that faults meet real questions."""
    ask(proxy, asking, 0 + 1)
    proxy.plan.seen.clear()
    return proxy


def retry_after(seconds: str) -> tuple[tuple[str, str], ...]:
    return (("retry-after", seconds),)


@pytest.mark.needs_llm_server
@pytest.mark.parametrize(
    "fault",
    [
        Fault(429),
        Fault(429, headers=retry_after("0")),
        Fault(500),
        Fault(503),
        Fault(408),
        Fault(409),
        Fault(kind="drop"),
        Fault(kind="cut"),
        Fault(kind="json", body={"no": "choices"}),
        Fault(kind="json", body=[1]),
    ],
    ids=lambda fault: f"{fault.status or fault.kind}",
)
def test_passing_failure_is_tried_again(known: FaultProxy, asking: Asking, fault: Fault) -> None:
    known.plan.faults[:] = [fault, fault]
    answers = ask(known, asking, 2)
    assert len(known.plan.seen) == 3  # the first cell is kept; the second took three requests
    assert all(answer.reason != "no_reply" for answer in answers)


@pytest.mark.needs_llm_server
def test_hanging_server_is_given_up_after_the_time_out(known: FaultProxy, asking: Asking) -> None:
    known.plan.faults[:] = [Fault(kind="hang", seconds=30)]
    began = time.monotonic()
    ask(known, replace(asking, timeout_s=0.5), 2)
    assert time.monotonic() - began < 10
    assert len(known.plan.seen) == 2


@pytest.mark.needs_llm_server
def test_long_retry_after_is_capped_and_not_obeyed_in_silence(
    known: FaultProxy, asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    known.plan.faults[:] = [Fault(429, headers=retry_after("90"))]
    began = time.monotonic()
    ask(known, replace(asking, quiet=False), 2)
    assert time.monotonic() - began < 10
    assert "status 429; next try in 0.1 s" in capsys.readouterr().err


@pytest.mark.needs_llm_server
def test_retry_after_is_the_least_wait(known: FaultProxy, asking: Asking) -> None:
    known.plan.faults[:] = [Fault(503, headers=retry_after("0.4"))]
    began = time.monotonic()
    ask(known, replace(asking, patience=Patience(first_wait_s=0.001)), 2)
    assert time.monotonic() - began >= 0.4


@pytest.mark.needs_llm_server
def test_cell_without_reply_after_six_tries_is_invalid_and_asked_again_next_time(
    known: FaultProxy, asking: Asking
) -> None:
    known.plan.faults[:] = [Fault(500)] * 6
    answer = ask(known, asking, 2)[1]
    assert (answer.state, answer.reason, answer.raw) == ("invalid", "no_reply", "status 500")
    assert len(known.plan.seen) == 6
    assert ask(known, asking, 2)[1].reason != "no_reply"


@pytest.mark.needs_llm_server
@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_stops_at_once_and_names_the_variable(
    known: FaultProxy, asking: Asking, status: int
) -> None:
    known.plan.always = Fault(status, body={"error": {"message": f"bad key {KEY}"}})
    with pytest.raises(UsageError, match="refuses the key in TEST_KEY") as error:
        ask(known, asking, 4)
    assert len(known.plan.seen) == 1
    assert KEY not in f"{error.value.message}{error.value.hint}"


@pytest.mark.needs_llm_server
def test_wrong_key_is_refused_by_the_real_server(
    proxy: FaultProxy, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-wrong")
    with pytest.raises(UsageError, match=r"refuses the key in TEST_KEY \(status 401\)"):
        ask(proxy, asking)


@pytest.mark.needs_llm_server
def test_used_up_quota_stops_although_it_looks_like_a_rate_limit(
    known: FaultProxy, asking: Asking
) -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    known.plan.always = Fault(429, body=body)
    with pytest.raises(ResourceError, match="quota is used up") as error:
        ask(known, asking, 4)
    assert len(known.plan.seen) == 1
    assert "kept" in error.value.hint


@pytest.mark.needs_llm_server
def test_unknown_model_stops_with_what_to_check(known: FaultProxy, asking: Asking) -> None:
    known.plan.always = Fault(404, body={"error": {"message": "no model m"}})
    with pytest.raises(UsageError, match="does not know the model or the path"):
        ask(known, asking, 2)


@pytest.mark.needs_llm_server
def test_refused_request_stops_at_the_first_one(known: FaultProxy, asking: Asking) -> None:
    known.plan.always = Fault(400, body={"error": {"message": "strange field"}})
    with pytest.raises(PluginError, match=r"status 400\): .*strange field"):
        ask(known, asking, 4)
    assert len(known.plan.seen) == 1


@pytest.mark.needs_llm_server
def test_too_long_prompt_is_the_fault_of_its_cell_alone(known: FaultProxy, asking: Asking) -> None:
    long = Question("long", tuple(f"GENE{i}" for i in range(900)))
    model = build(Options(base_url=known.base_url, top_k=2000))
    answers = model.classify([long, *cells(1)], asking)
    assert (answers[0].state, answers[0].reason) == ("invalid", "too_long")
    assert answers[1].reason != "too_long"


@pytest.mark.needs_llm_server
def test_redirect_is_not_followed(known: FaultProxy, asking: Asking) -> None:
    known.plan.always = Fault(307, headers=(("location", "http://127.0.0.1:9/v1"),))
    with pytest.raises(UsageError, match="sends elsewhere"):
        ask(known, asking, 2)


@pytest.mark.needs_llm_server
def test_server_that_is_down_stops_the_run_after_twenty_failures(
    known: FaultProxy, asking: Asking
) -> None:
    known.plan.always = Fault(500)
    hasty = replace(asking, patience=Patience(tries=1))
    with pytest.raises(ResourceError, match=r"20 requests in a row failed.*status 500"):
        ask(known, hasty, 40)
    assert len(known.plan.seen) == 20


@pytest.mark.needs_llm_server
def test_nobody_listens_is_a_resource_error(asking: Asking) -> None:
    model = build(Options(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1 does not answer: no connection"):
        model.classify(cells(1), asking)


@pytest.mark.needs_llm_server
def test_exhausted_rate_limit_headers_make_everybody_wait(
    known: FaultProxy, asking: Asking
) -> None:
    body = {"choices": [{"message": {"content": '{"label": "unsure"}'}, "finish_reason": "stop"}]}
    headers = (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "300ms"))
    known.plan.always = Fault(kind="json", body=body, headers=headers)
    began = time.monotonic()
    ask(known, asking, 3)
    assert time.monotonic() - began >= 0.3


def test_other_hosts_need_leave_and_encryption(asking: Asking) -> None:
    place = Place.parse("https://llm.example.org/v1/")
    assert place.url == "https://llm.example.org/v1"
    with pytest.raises(UsageError, match=r"would be sent to llm\.example\.org") as error:
        Endpoint(place, asking)
    assert "--allow-network" in error.value.hint
    with pytest.raises(UsageError, match="not encrypted"):
        Endpoint(Place.parse("http://llm.example.org/v1"), replace(asking, allow_network=True))


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8080/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://localhost.example.org/v1", False),
        ("https://127.0.0.1.example.org", False),
        ("https://10.0.0.1/v1", False),
        ("https://0.0.0.0/v1", False),
    ],
)
def test_only_loopback_is_this_machine(url: str, local: bool) -> None:
    assert Place.parse(url).local is local


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "x/v1",
        "",
        "http://",
        "https://user:secret@host/v1",
        "https://host/v1?key=secret",
    ],
)
def test_address_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as error:
        Place.parse(url)
    assert "secret" not in f"{error.value.message}{error.value.hint}"


def test_key_of_one_provider_is_not_sent_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Place.parse("https://api.openai.com/v1").find_key(Asking()) == KEY
    assert Place.parse("https://llm.example.org/v1").find_key(Asking()) == ""
    named = Asking(key_variable="OPENAI_API_KEY")
    assert Place.parse("https://llm.example.org/v1").find_key(named) == KEY


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_headers_of_the_environment_are_sent_to_nobody(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: secret\nAuthorization: Bearer secret")
    with FaultProxy("http://127.0.0.1:9") as server:
        server.plan.always = Fault(kind="json", body={"choices": []})
        endpoint = Endpoint(Place.parse(server.base_url), asking)
        endpoint.send({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
        endpoint.close()
    (headers,) = server.plan.headers
    assert "secret" not in str(headers)
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(("max_cost", "spent"), [(None, 100.0), (1.0, 300.0)])
def test_what_a_server_does_not_tell_counts_in_full_against_a_budget(
    asking: Asking, max_cost: float | None, spent: float
) -> None:
    with FaultProxy("http://127.0.0.1:9") as server:
        server.plan.always = Fault(kind="json", body={"choices": []})
        limited = replace(asking, max_cost=max_cost)
        session = Session(Place.parse(server.base_url), limited, Price(1.0, 1.0))
        session.send({"model": "m", "messages": []}, Usage(90, 10), Usage(200, 100))
        session.close()
    assert session.budget.spent * 1e6 == pytest.approx(spent)


def test_key_that_cannot_be_sent_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\u2026abc")
    with pytest.raises(UsageError, match="key in OPENAI_API_KEY holds characters") as error:
        Place.parse("https://api.openai.com/v1").find_key(Asking())
    assert "abc" not in f"{error.value.message}{error.value.hint}"


def test_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        Place.parse("https://api.openai.com/v1").find_key(Asking())
