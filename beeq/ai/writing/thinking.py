"""Separates a model's answer from the thinking that it writes before it. No IO.

Servers that do not take thinking out leave it in the text, between marks. The opening mark may be missing:
many models' templates end the prompt with it, so the text begins with thinking. Where thinking was cut off,
the closing mark is missing.
"""

import re
from dataclasses import dataclass

_NAMES = (
    r"(?:[\w.-]{1,20}[:_])?(?:think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis|"
    r"chain_of_thought)"
)
#: ``<think>``, ``<thinking id="1">``, ``<seed:think>``, ``[THINK]``, ``◁think▷``, ``<|begin_of_thought|>``,
#: and the channels of gpt-oss. What begins the answer closes all thinking before it.
_MARK = re.compile(
    rf"(?P<open><{_NAMES}(?:\s[^<>]{{0,200}})?>|◁{_NAMES}▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>(?:analysis|commentary)\b[^<]{0,100}<\|message\|>)"
    rf"|(?P<close></{_NAMES}\s{{0,9}}>|◁/{_NAMES}▷|<\|end_of_thought\|>|<\|channel\|>final\b[^<]{{0,100}}<\|message\|>)"
    r"|(?-i:(?P<open_think>\[THINK\])|(?P<close_think>\[/THINK\]))",
    re.IGNORECASE,
)
#: What may be left around an answer.
_WRAPPER = re.compile(
    r"<\|begin_of_solution\|>|<(answer|output|response|final|final_answer|solution)>", re.IGNORECASE
)
#: How many characters before a mark are searched for the beginning of its line.
_INDENT = 80
_TAILS = ("<|return|>", "<|end|>", "<|im_end|>", "<|eot_id|>", "<|end_of_solution|>")


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark in a text, from ``start`` to ``end``, at which thinking begins or ends.

    ``thinking_end``: where the thinking ends that an opening mark begins; None for a closing mark. Thinking
    without an end goes to the end of the text, if it begins a line; else the mark is part of the text.
    """

    start: int
    end: int
    thinking_end: int | None = None


def marks_in(text: str) -> list[Mark]:
    """Return the marks in a text, in order."""
    marks: list[Mark] = []
    closing_end: int | None = None
    for found in reversed(list(_MARK.finditer(text))):
        if found["open"] is None and found["open_think"] is None:
            closing_end = found.end()
            marks.append(Mark(found.start(), found.end()))
            continue
        end = closing_end
        if end is None:
            before = text[max(0, found.start() - _INDENT) : found.start()]
            begins_line = not before.rpartition("\n")[2].strip()
            end = len(text) if begins_line else found.end()
        marks.append(Mark(found.start(), found.end(), end))
    return marks[::-1]


def answer_in(text: str) -> str:
    """Return a model's text without thinking, and without a tag around the rest. It may be empty."""
    kept: list[str] = []
    place = 0
    for mark in marks_in(text):
        if mark.start < place:
            continue
        if mark.thinking_end is None:
            kept.clear()  # all before it was thinking, whose opening mark is missing
            place = mark.end
        else:
            is_text = mark.thinking_end == mark.end
            kept.append(text[place : mark.end if is_text else mark.start])
            place = mark.thinking_end
    answer = "".join([*kept, text[place:]]).strip() if place else text
    return _unwrapped(answer)


def _unwrapped(answer: str) -> str:
    plain = answer.strip()
    end = len(plain)
    while tail := next((tail for tail in _TAILS if plain.endswith(tail, 0, end)), None):
        end -= len(tail)
        while end and plain[end - 1].isspace():
            end -= 1
    if end < len(plain):
        plain = answer = plain[:end]
    wrapper = _WRAPPER.match(plain)
    if wrapper is None:
        return answer
    inner = plain[wrapper.end() :]
    closing = f"</{wrapper[1]}>"
    return (inner[: -len(closing)] if inner.lower().endswith(closing.lower()) else inner).strip()
