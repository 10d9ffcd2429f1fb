"""What a queue keeps of ended jobs, and its jobs' default timeout: as settings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from beeq import Keep
from beeq.settings import Settings, duration_text

pytestmark = pytest.mark.fast

WEEK_MS = 7 * 24 * 3_600_000


@pytest.mark.parametrize(
    ("given", "keep", "text"),
    [
        ("7d", Keep(age="7d"), "7d"),
        ("10000", Keep(count=10_000), "10000"),
        ("7d,10000", Keep(age="7d", count=10_000), "7d,10000"),
        (" 10000 , 7d ", Keep(age=WEEK_MS, count=10_000), "7d,10000"),
        ("168h,own", Keep(age=timedelta(days=7), own=True), "7d,own"),
        ("0", Keep(count=0), "0"),
        ("0s", Keep(age=0), "0s"),
        ("1.5s", Keep(age=1500), "1500ms"),
        ("all", Keep(), "all"),
        (500, Keep(count=500), "500"),
        (timedelta(hours=36), Keep(age="36h"), "36h"),
        (Keep(count=1, own=True), Keep(count=1, own=True), "1,own"),
    ],
)
@pytest.mark.parametrize("name", ["keep_succeeded", "keep_failed"])
def test_what_is_kept_has_many_forms_and_one_text(name, given, keep, text):
    found = getattr(Settings(**{name: given}), name)
    assert found == keep
    assert str(found) == text
    assert Keep.of(str(found)).is_all is found.is_all
    assert str(Keep.of(str(found))) == text


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("", ValueError, "'' is neither an age nor a count; write 7d, 10000, 7d,10000 or all"),
        ("7", None, ""),
        ("7 days", ValueError, "'7 days' is neither an age nor a count"),
        ("7d,", ValueError, "'' is neither an age nor a count"),
        ("7d,8d", ValueError, "'7d,8d' names two ages"),
        ("1,2", ValueError, "'1,2' names two counts"),
        ("own", ValueError, "'own' names no age and no count"),
        ("all,7d", ValueError, "'all' is neither an age nor a count"),
        ("-1", ValueError, "'-1' is neither an age nor a count"),
        (-1, ValueError, "count must be at least 0, not -1"),
        (2**60, ValueError, "count must be at most"),
        (timedelta(days=-1), ValueError, "age must be at least 0"),
        (True, TypeError, "it must be a Keep, a count, a timedelta or text, not bool"),
        (7.0, TypeError, "not float"),
        (("7d", 10), TypeError, "not tuple"),
    ],
)
def test_what_keeps_nothing_clear_is_refused_by_name(given, error, says):
    if error is None:
        assert Settings(keep_failed=given).keep_failed == Keep(count=int(given))
        return
    with pytest.raises(error, match="^keep_failed: ") as raised:
        Settings(keep_failed=given)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"age": 1.5}, TypeError),
        ({"count": "7"}, TypeError),
        ({"own": 1}, TypeError),
        ({"age": "7"}, ValueError),
    ],
)
def test_a_keep_checks_its_parts(wrong, error):
    with pytest.raises(error, match=f"^{next(iter(wrong))}"):
        Keep(**wrong)


def test_a_duration_reads_as_it_was_written():
    for text in ("0s", "500ms", "2s", "90s", "5m", "36h", "30d"):
        assert duration_text(Settings(job_timeout=text).job_timeout) == text


def test_a_queue_can_be_told_later_what_it_keeps(make_queue):
    queue = make_queue(keep_failed="1d")
    queue.use(keep_succeeded="7d,10000", job_timeout="5m", keep_failed=None)
    assert (str(queue.settings.keep_succeeded), str(queue.settings.keep_failed)) == ("7d,10000", "1d")
    assert queue.settings.job_timeout == 300_000
    with pytest.raises(ValueError, match=r"^keep_failed: 'soon' is neither an age"):
        queue.use(keep_failed="soon")
    with pytest.raises(TypeError):
        queue.use(keeps="7d")
