"""A queue's history for its screen: charts, the same numbers as text, and the gaps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from beeq.operations.history.points import History, HistoryPoint
from beeq.web.page import words
from beeq.web.page.charts.drawing import Series, chart, sparkline

#: The selectable spans: name, length.
SPANS = {"hour": "1h", "day": "24h", "week": "7d"}
#: So many gaps are named.
_MOST_GAPS = 3
#: How many points make up "now".
_NEWEST = 5
_MANY = 10
#: A history with such points goes back to another day.
_LONG_STEP_MS = 600_000


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows.
        series: with the class and the name of each, for the legend.
        most: the largest value, as text.
    """

    title: str
    series: list[Series]
    most: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Trend:
    """A queue's last hour in short.

    Attributes:
        svg: a sparkline of what ended. text: the same in words.
    """

    svg: Markup
    text: str


def rate(count: float | None) -> str:
    """Return a number a minute for a person."""
    if count is None:
        return "?"
    return words.number(round(count)) if count >= _MANY or count == round(count) else f"{count:.1f}"


def share(part: float | None) -> str:
    """Return a part of a whole in per cent."""
    if part is None:
        return "–"
    per_cent = part * 100
    if 0 < per_cent < 0.1:  # noqa: PLR2004 - less than can be written
        return "under 0.1 %"
    return f"{per_cent:.1f} %" if 0 < per_cent < _MANY else f"{per_cent:.0f} %"


def clock(at_ms: int, step_ms: int) -> str:
    """Return when a point begins, in UTC; with the day where the history is so long."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%H:%M" if step_ms < _LONG_STEP_MS else "%d %b %H:%M")


def trend(history: History) -> Trend | None:
    """Return a queue's last hour; None without samples."""
    if history.is_empty:
        return None
    newest = [point for point in history.points if point.minutes][-_NEWEST:]
    minutes = sum(point.minutes for point in newest)
    came = rate(sum(point.added for point in newest) / minutes)
    went = rate(sum(point.ended for point in newest) / minutes)
    failed = history.failure_rate
    ends = f", {share(failed)} failed" if failed else ""
    text = f"{came} in, {went} out a minute{ends}"
    label = f"Jobs that ended in each minute of the last hour, at most {rate(_most(history))}; now {text}"
    bars = [point.a_minute(point.ended) for point in history.points]
    bad = [point.a_minute(point.failed) for point in history.points]
    return Trend(sparkline(label, bars, bad), text)


def _most(history: History) -> float:
    return max((point.a_minute(point.ended) or 0 for point in history.points), default=0)


def panels(history: History) -> list[Panel]:
    """Return the charts of a history."""

    def counts(get: Callable[[HistoryPoint], int]) -> list[float | None]:
        return [point.a_minute(get(point)) for point in history.points]

    came = Series("in", counts(lambda point: point.added), "one")
    done = Series("done", counts(lambda point: point.succeeded), "two")
    failed = Series("failed", counts(lambda point: point.failed), "bad", is_filled=True)
    waiting = Series("waiting", [point.waiting for point in history.points], "one", is_filled=True)
    return [
        _panel(history, "In and done / min", [came, done], rate),
        _panel(history, "Failed / min", [failed], rate),
        _panel(history, "Waiting", [waiting], rate),
        _panel(history, "Wait", _percentiles(history, "waits"), words.duration),
        _panel(history, "Duration", _percentiles(history, "durations"), words.duration),
    ]


def _percentiles(history: History, name: str) -> list[Series]:
    found = [getattr(point, name) for point in history.points]
    return [
        Series("median", [buckets.percentile_ms(0.5) for buckets in found], "one"),
        Series("95 %", [buckets.percentile_ms(0.95) for buckets in found], "two"),
    ]


def _panel(history: History, title: str, series: list[Series], shown: Callable[[float], str]) -> Panel:
    most = max((each.most for each in series), default=0)
    tips = []
    for at, point in enumerate(history.points):
        values = [(each.name, each.values[at]) for each in series]
        known = ", ".join(f"{shown(value)} {name}" for name, value in values if value is not None)
        nothing = "nothing" if point.minutes else "nobody looked"
        tips.append(f"{clock(point.at_ms, history.step_ms)}: {known or nothing}")
    parts = [f"{each.name} at most {shown(each.most)}" for each in series if each.most > 0]
    label = f"{title}: {', '.join(parts) or 'nothing'}"
    return Panel(title, series, shown(most) if most else "", chart(label, series, tips))


def gaps_text(history: History) -> str:
    """Return the times without samples, in words; "" if there are none."""
    if not history.gaps or history.is_empty:
        return ""
    gaps, begin, step_ms = list(history.gaps), "", history.step_ms
    if history.points and gaps[0][0] <= history.points[0].at_ms:
        begin = f"It begins at {clock(gaps.pop(0)[1], step_ms)}. "
    named = [
        f"{clock(from_ms, step_ms)} to {clock(to_ms, step_ms)} ({words.duration(to_ms - from_ms)})"
        for from_ms, to_ms in gaps[-_MOST_GAPS:]
    ]
    if not named:
        return begin.strip()
    more = f" and {len(gaps) - _MOST_GAPS} times before" if len(gaps) > _MOST_GAPS else ""
    return (
        f"{begin}Nobody looked from {', from '.join(named)}{more}: no worker of beeq's and no page was there."
    )


def total_text(history: History) -> str:
    """Return what happened in all, in words."""
    total = history.total
    came, done, failed = map(words.number, (total.added, total.succeeded, total.failed))
    text = f"{came} in, {done} done, {failed} failed"
    if total.ended:
        text += f" ({share(history.failure_rate)})"
    if total.retried:
        text += f", {words.number(total.retried)} failed attempts that were repeated"
    if total.uncounted:
        text += f". Of these {words.number(total.uncounted)} ended on Node's workers, by an estimate"
    return text


def failures_by_hour(by_hour: Sequence[int]) -> Markup:
    """Return a sparkline of a group of failures; nothing if it has none in these hours."""
    most = max(by_hour, default=0)
    if not most:
        return Markup()
    hours = len(by_hour)
    label = (
        f"{words.number(sum(by_hour))} failed in the last {hours} hours, at most {words.number(most)} in one"
    )
    return sparkline(label, by_hour, by_hour)
