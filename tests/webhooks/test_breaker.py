"""Circuits by a clock of the test's own: when a receiver is left alone, tried, and called again."""

from __future__ import annotations

import pytest

from beeq.webhooks.receivers import breaker as breakers
from beeq.webhooks.receivers.admission import ReceiverBusy, ReceiverLimits, Receivers
from beeq.webhooks.receivers.breaker import Breaker
from beeq.webhooks.urls import target_of

URL = "https://hooks.example/a"


class Clock:
    """Seconds that go on when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def receivers(clock: Clock, **limits: float) -> Receivers:
    given = {"max_failures": 3, **limits}
    return Receivers(ReceiverLimits(**given), clock=clock, spread=lambda: 0.0)  # type: ignore[arg-type]


def attempt(found: Receivers, url: str = URL, status: int | None = 200, *, is_connected: bool = True) -> None:
    with found.admit(target_of(url), 10) as visit:
        if status is None:
            visit.failed(is_connected=is_connected)
        else:
            visit.answered(status)


def wait_s(found: Receivers, url: str = URL) -> float:
    try:
        found.admit(target_of(url), 10)
    except ReceiverBusy as busy:
        return busy.wait_s
    return 0.0


@pytest.mark.parametrize("status", [500, 503, 599, 429, None])
def test_failures_in_a_row_leave_an_endpoint_alone(clock: Clock, status: int | None) -> None:
    found = receivers(clock)
    for _ in range(3):
        attempt(found, status=status)
    with pytest.raises(ReceiverBusy, match=r"^webhook at hooks\.example failed too often") as caught:
        attempt(found)

    assert caught.value.wait_s == 5
    assert wait_s(found, "https://hooks.example/b") == 0


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 410])
def test_an_answer_that_says_something_ends_the_row(clock: Clock, status: int) -> None:
    found = receivers(clock)
    for _ in range(5):
        attempt(found, status=500)
        attempt(found, status=500)
        attempt(found, status=status)

    assert wait_s(found) == 0


def test_a_host_without_connection_is_left_alone_at_all_paths(clock: Clock) -> None:
    found = receivers(clock)
    for path in "abc":
        attempt(found, f"https://hooks.example/{path}", None, is_connected=False)

    assert wait_s(found, "https://hooks.example/d?x=1") == 5
    assert wait_s(found, "https://HOOKS.example.:443/") == 5
    found.admit(target_of(URL), 10, waited_s=3601)
    assert wait_s(found, "http://hooks.example/d") == 0
    assert wait_s(found, "https://hooks.example:8443/d") == 0
    assert wait_s(found, "https://other.example/d") == 0


def test_a_path_that_hangs_stands_in_no_other_paths_way(clock: Clock) -> None:
    found = receivers(clock)
    for n in range(80):
        attempt(found, f"https://hooks.example/slow/{n % 40}", None)

    assert wait_s(found) == 0


def test_after_the_pause_one_attempt_tries_the_receiver(clock: Clock) -> None:
    found = receivers(clock)
    for _ in range(3):
        attempt(found, status=500)
    clock.now_s += 4.9
    assert wait_s(found) == pytest.approx(0.1)
    clock.now_s += 0.2
    with found.admit(target_of(URL), 10) as trial:
        assert wait_s(found) == 5  # one at a time
        trial.answered(200)

    assert wait_s(found) == 0


def test_the_pause_grows_with_each_trial_that_fails(clock: Clock) -> None:
    found = receivers(clock)
    for _ in range(3):
        attempt(found, status=500)
    pauses_s = []
    for _ in range(9):
        pauses_s.append(wait_s(found))
        clock.now_s += pauses_s[-1]
        attempt(found, status=500)
    assert pauses_s == [5, 10, 20, 40, 80, 160, 300, 300, 300]

    clock.now_s += 300
    attempt(found)
    for _ in range(3):
        attempt(found, status=500)
    assert wait_s(found) == 5  # a new row begins from the first pause


def test_a_trial_that_ends_without_a_word_may_be_repeated(clock: Clock) -> None:
    found = receivers(clock)
    for _ in range(3):
        attempt(found, status=500)
    clock.now_s += 5
    with found.admit(target_of(URL), 10):
        pass  # its worker stops
    assert wait_s(found) == 0


def test_attempts_from_before_do_not_lengthen_the_pause(clock: Clock) -> None:
    found = receivers(clock)
    early = [found.admit(target_of(URL), 10).__enter__() for _ in range(8)]
    for visit in early[:6]:
        visit.answered(500)
        visit.__exit__(None, None, None)
    clock.now_s += 5
    with found.admit(target_of(URL), 10) as trial:
        early[6].answered(500)
        assert wait_s(found) == 5  # the trial goes on, and is the only one
        trial.answered(500)
    assert wait_s(found) == 10

    early[7].answered(200)
    assert wait_s(found) == 0


def test_who_waits_does_not_come_back_all_at_once(clock: Clock) -> None:
    parts = iter([0.0, 0.5, 1.0])
    breaker = Breaker(1, 8, 300, clock=clock, spread=lambda: next(parts))
    assert breaker.failed("a", is_trial=False)

    assert [breaker.wait_s("a") for _ in range(3)] == [8, 9, 10]


def test_no_circuit_opens_where_that_is_switched_off(clock: Clock) -> None:
    found = receivers(clock, max_failures=0)
    for _ in range(100):
        attempt(found, status=500)

    assert wait_s(found) == 0


def test_the_oldest_circuits_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "MAX_CIRCUITS", 2)
    breaker = Breaker(1, 5, 300, clock=clock, spread=lambda: 0.0)
    for name in "abac":
        breaker.failed(name, is_trial=False)

    assert [breaker.wait_s(name) for name in "abc"] == [5, 0, 5]


def test_names_that_only_failed_push_out_no_open_circuit(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "MAX_CIRCUITS", 2)
    breaker = Breaker(2, 5, 300, clock=clock, spread=lambda: 0.0)
    for name in ["dead", "dead", *(f"nowhere{n}" for n in range(100))]:
        breaker.failed(name, is_trial=False)

    assert breaker.wait_s("dead") == 5
    assert len(breaker._failing) == 2


def test_open_circuits_asked_about_longest_ago_are_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "MAX_CIRCUITS", 2)
    breaker = Breaker(1, 5, 300, clock=clock, spread=lambda: 0.0)
    for name in "abcdef":
        breaker.failed(name, is_trial=False)
        assert breaker.wait_s("a") == 5

    assert [breaker.wait_s(name) for name in "def"] == [0, 0, 5]
    assert len(breaker._opened) == 2


def test_the_log_names_host_and_port_once_for_each_change(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    found = receivers(clock)
    with caplog.at_level("INFO", logger="beeq.webhooks"):
        for _ in range(3):
            attempt(found, "https://hooks.example:8443/hunter2?token=hunter2", 500)
        clock.now_s += 5
        attempt(found, "https://hooks.example:8443/hunter2", 500)
        clock.now_s += 10
        attempt(found, "https://hooks.example:8443/hunter2", 200)

    assert [record.getMessage() for record in caplog.records] == [
        "webhooks to hooks.example:8443 wait: an endpoint gives no good answer, several times in a row",
        "webhooks to hooks.example:8443 go on",
    ]


@pytest.mark.parametrize(("failures", "places"), [("0", "1"), (" 25 ", "3"), (None, None)])
def test_both_settings_are_whole_numbers(failures: str | None, places: str | None) -> None:
    limits = ReceiverLimits.parse(failures, places)
    assert limits.max_failures == (10 if failures is None else int(failures))
    assert limits.slow_places == (None if places is None else int(places))


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "1000000", "٣", ""])
def test_a_number_that_is_none_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_BREAKER_FAILURES must be a whole number from 0 to"):
        ReceiverLimits.parse(text, None)
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_SLOW_PLACES must be a whole number from 1 to"):
        ReceiverLimits.parse(None, text)
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_SLOW_PLACES"):
        ReceiverLimits.parse(None, "0")
