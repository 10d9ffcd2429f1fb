"""Pictures of numbers over time, as SVG. Pure.

Colours come from the style sheet by class, for light and dark; there is no style in the markup. Each value is
drawn as wide as its time span; None is drawn as a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

Values = Sequence[float | None]
_HEIGHT = 40
#: The least visible height of a value above 0.
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of numbers of a chart.

    Attributes:
        name: for the legend.
        values: one for each point of time.
        look: a class of the style sheet: ``one``, ``two`` or ``bad``.
        is_filled: drawn as bars, else as a line of steps.
    """

    name: str
    values: Values
    look: str
    is_filled: bool = False

    @property
    def most(self) -> float:
        """The largest value; 0 if there is none."""
        return max((value for value in self.values if value is not None), default=0)


def sparkline(label: str, values: Values, bad: Values = ()) -> Markup:
    """Return a small picture: bars, and upon them, at their feet, those of the part that is bad.

    Args:
        label: what it shows, in words.
        values: the whole of each bar.
        bad: the part of it.
    """
    series = [Series("", values, "one", is_filled=True), Series("", bad, "bad", is_filled=True)]
    return _svg("spark", label, len(values), _drawn(series, len(values)))


def chart(label: str, series: Sequence[Series], tips: Sequence[str]) -> Markup:
    """Return a chart of one or several series; each point of time has a tip."""
    count = len(tips)
    areas = (
        Markup('<rect class="tip" x="{}" y="0" width="1" height="{}"><title>{}</title></rect>').format(
            at, _HEIGHT, tip
        )
        for at, tip in enumerate(tips)
    )
    return _svg("chart", label, count, [*_drawn(series, count), *areas])


def _svg(look: str, label: str, width: int, parts: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(look, label, max(width, 1), _HEIGHT, Markup("").join(parts))


def _drawn(series: Sequence[Series], count: int) -> list[Markup]:
    most = max((each.most for each in series), default=0)
    are_known = [
        any(at < len(each.values) and each.values[at] is not None for each in series) for at in range(count)
    ]
    gaps = [
        Markup('<rect class="gap" x="{}" y="0" width="{}" height="{}"/>').format(start, end - start, _HEIGHT)
        for start, end in _runs([not known for known in are_known])
    ]
    return gaps + [_path(each, most) for each in series if each.most > 0]


def _runs(are_meant: Sequence[bool]) -> list[tuple[int, int]]:
    """Return from where to where the values are true."""
    runs, at = [], 0
    for is_meant, group in groupby(are_meant):
        length = len(list(group))
        if is_meant:
            runs.append((at, at + length))
        at += length
    return runs


def _path(series: Series, most: float) -> Markup:
    steps: list[str] = []
    for start, end in _runs([value is not None for value in series.values]):
        heights = [_y(value, most) for value in series.values[start:end] if value is not None]
        if series.is_filled:
            bars = "".join(f"V{y}H{at + 1}" for at, y in enumerate(heights, start))
            steps.append(f"M{start} {_HEIGHT}{bars}V{_HEIGHT}Z")
        else:
            line = "".join(f"V{y}H{at + 1}" for at, y in enumerate(heights, start))
            steps.append(f"M{start} {heights[0]}{line}")
    look = f"{series.look} bars" if series.is_filled else f"{series.look} line"
    return Markup('<path class="{}" d="{}"/>').format(look, "".join(steps))


def _y(value: float, most: float) -> float:
    if value <= 0:
        return _HEIGHT
    return round(_HEIGHT - max(_LEAST, value / most * (_HEIGHT - 2)), 1)
