"""What workers and their child processes say: messages however cut, errors however odd, handlers by name."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from datetime import timedelta
from typing import Any

import pytest

from beeq import errors
from beeq.errors import Discard, JobFailed, JobLost, JobTimedOut, QueueClosed, RedisRefused, Retry
from beeq.protocol.codec import dumps, loads
from beeq.protocol.outcome import message_of
from beeq.worker.attempts.processes.handler_ref import HandlerRef, load
from beeq.worker.attempts.processes.ipc import (
    TOKEN_BYTES,
    ChildTraceback,
    Decoder,
    Message,
    encode,
    error_from_json,
    error_to_json,
)

pytestmark = pytest.mark.fast

MESSAGES = [
    Message({"kind": "ready"}),
    Message({"kind": "job", "id": "größe", "n": 2**70}, b'{"data":1}'),
    Message({"kind": "end", "text": "half \udc00"}, b"\x00\xff" * 1000),
    Message({"kind": "answer"}, b""),
]
TOKEN = bytes(range(TOKEN_BYTES))


def bytes_of(message: Message) -> bytes:
    facts = {name: value for name, value in message.head.items() if name != "kind"}
    return encode(TOKEN, message.head["kind"], message.body, **facts)


STREAM = b"".join(map(bytes_of, MESSAGES))


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 27, 28, 29, 100, len(STREAM)])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_messages_are_read_whole_however_the_stream_was_cut(size, token):
    decoder, read = Decoder(token), []
    for at in range(0, len(STREAM), size):
        read += decoder.feed(STREAM[at : at + size])
    assert read == MESSAGES


@pytest.mark.parametrize(
    "nonsense",
    [
        b"someone else's words",
        b"\xff" * 28,
        b"x",
        TOKEN + b"\x00" * 12,
        encode(TOKEN, "x")[:28] + b"[1,2,3,4,5,6]",
        encode(TOKEN, "x").replace(b"kind", b"kinx"),
        TOKEN + b"\x00\x00\x00\x02" + b"\xff" * 8,
        encode(TOKEN, "x") + encode(bytes(TOKEN_BYTES), "x"),
    ],
)
def test_what_is_no_message_is_refused(nonsense):
    with pytest.raises(ValueError, match=r"."):
        list(Decoder(TOKEN).feed(nonsense))


@pytest.mark.parametrize("size", [1, 7, 16, 100_000])
@pytest.mark.parametrize("written", [1, 15, 16, 20, 28, 40, 200, -1])
def test_a_message_after_a_part_of_one_breaks_the_stream(size, written):
    """It must not be taken in as the rest: then both sides would wait for each other."""
    stream = bytes_of(Message({"kind": "call"}, b"x" * 500))[:written] + bytes_of(Message({"kind": "end"}))
    decoder = Decoder(TOKEN)

    def feed_all() -> None:
        for at in range(0, len(stream), size):
            list(decoder.feed(stream[at : at + size]))

    with pytest.raises(ValueError, match="message"):
        feed_all()


def test_a_message_in_the_middle_of_another_breaks_the_stream():
    outer, inner = bytes_of(Message({"kind": "end"}, b"x" * 500)), bytes_of(Message({"kind": "begin"}))
    with pytest.raises(ValueError, match="message"):
        list(Decoder(TOKEN).feed(outer[:300] + inner + outer[300:]))


def test_a_fact_that_is_no_json_is_refused():
    with pytest.raises(TypeError):
        encode(TOKEN, "job", id=object())


def again(error: BaseException, **options: Any) -> Exception:
    """Tell of the error and hear of it elsewhere."""
    return error_from_json(loads(dumps(error_to_json(error, **options))), with_trace=True)


class Own(KeyError):
    """Wants what nobody has elsewhere."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Later(Retry):
    pass


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class JobLostToo(Exception):
    """Not beeq's."""


JobLostToo.__name__ = "JobLost"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("boom"), ValueError),
        (ValueError(), ValueError),
        (KeyError("k"), KeyError),
        (Own(1, 2), KeyError),
        (FileNotFoundError(2, "No such file", "x"), FileNotFoundError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeDecodeError),
        (TimeoutError("late"), TimeoutError),
        (ExceptionGroup("many", [ValueError("one")]), Exception),
        (Silent(), Exception),
        (JobLostToo("mine"), Exception),
        (SystemExit(3), Exception),
        (KeyboardInterrupt(), Exception),
        (GeneratorExit(), Exception),
        (asyncio.CancelledError(), Exception),
        (StopIteration(1), Exception),
        (StopAsyncIteration("x"), Exception),
        (JobLost("7"), JobLost),
        (JobTimedOut("7", 10), JobTimedOut),
        (JobFailed("7", "why"), JobFailed),
        (QueueClosed(), QueueClosed),
        (RedisRefused("OOM command not allowed"), RedisRefused),
        (errors.RedisUnavailable("away"), errors.RedisUnavailable),
        (Retry(5, "not now"), Retry),
        (Later(reason="not now"), Later.__base__),
        (Discard("hopeless"), Discard),
    ],
)
def test_an_error_is_heard_of_as_what_it_is(error, kind):
    heard = again(error)
    assert type(heard).__name__ == type(error).__name__
    assert isinstance(heard, kind)
    assert message_of(heard) == message_of(error)
    assert isinstance(heard, JobLost) == isinstance(error, JobLost)
    assert not isinstance(heard, StopIteration | StopAsyncIteration)
    assert type(heard) is type(error) or type(error).__module__ == type(heard).__module__


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (JobLost("7"), {"job_id": "7"}),
        (JobTimedOut("7", 10), {"job_id": "7", "timeout_ms": 10}),
        (RedisRefused("OOM command"), {"code": "OOM"}),
        (Retry(), {"after": None}),
        (Retry(1500), {"after": 1500}),
        (Retry(timedelta(seconds=1.5)), {"after": 1500}),
        (Discard("hopeless"), {"reason": "hopeless"}),
    ],
)
def test_beeqs_errors_keep_what_they_carry(error, facts):
    heard = again(error)
    assert {name: getattr(heard, name) for name in facts} == facts


def test_an_error_may_be_told_as_another_kind_in_its_own_name():
    heard = again(TypeError("no JSON"), base=Discard)
    assert (type(heard).__name__, str(heard)) == ("TypeError", "no JSON")
    assert isinstance(heard, Discard)


def test_the_traceback_comes_along_as_the_cause():
    def innermost():
        raise ValueError("boom")

    try:
        innermost()
    except ValueError as error:
        heard = again(error)
    assert isinstance(heard.__cause__, ChildTraceback)
    text = str(heard.__cause__)
    assert text.startswith("in the child process\nTraceback (most recent call last):\n")
    assert "in innermost" in text
    assert text.endswith("ValueError: boom")


def test_a_message_of_any_length_is_told_in_short():
    assert len(dumps(error_to_json(ValueError("x" * 10_000_000)))) < 100_000


# Handlers by name.


def plain(_job):
    return "plain"


class Callable:
    def method(self, _job):
        return "method"

    @staticmethod
    def static(_job):
        return "static"

    def __call__(self, _job):
        return "called"


@pytest.mark.parametrize(
    "handler",
    [plain, Callable.static, Callable(), Callable().method, functools.partial(plain), len],
)
def test_what_can_be_found_by_name_or_pickled_is_found(handler):
    reference = HandlerRef.of(handler)
    reference.check(handler)
    found = load(reference)
    assert found is handler or type(found) is type(handler)
    assert not reference.main_path
    assert not reference.main_module


def test_a_decorator_is_called_before_its_function_has_a_name():
    module = types.ModuleType("module_in_the_making")
    sys.modules[module.__name__] = module
    try:
        exec("def handler(job): pass", module.__dict__)
        handler = module.__dict__.pop("handler")
        reference = HandlerRef.of(handler)
        with pytest.raises(TypeError, match="module_in_the_making.handler is not there"):
            reference.check(handler)
        module.__dict__["handler"] = handler
        reference.check(handler)
        module.__dict__["handler"] = len
        with pytest.raises(TypeError, match="module_in_the_making.handler is something else"):
            reference.check(handler)
    finally:
        del sys.modules[module.__name__]


module_level = lambda _job: None  # noqa: E731 - its name is no name


def test_what_has_no_name_or_cannot_be_pickled_is_refused():
    def local(_job):
        """Only known here."""

    class Local:
        def __call__(self, _job):
            """Only known here."""

    for handler in (local, module_level, functools.partial(local), Local(), Local().__call__):
        with pytest.raises(TypeError, match="importable by name"):
            HandlerRef.of(handler)
