"""Film scripts: the instructions for the model, and finding the script in its text. No IO."""

from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr, ValidationError

from beeq.ai.errors import AIFailed
from beeq.ai.writing.objects import end_of_object, object_of
from beeq.ai.writing.thinking import marks_in
from beeq.jobs import faults

#: The system message. Providers want the word JSON in a request for JSON.
INSTRUCTIONS = """\
You write scripts for films. Answer with one JSON object and nothing else:
{"title": text, "scenes": [{"title": text, "description": text, "dialogue": text, "duration": number}, …]}
There is one scene at least. Each has a "description": what is seen and what happens. "title",
"dialogue" (all that is said) and "duration" (in seconds) may be left out. More fields, or fields of another
form, are fine where the request asks for them.
"""
#: So many characters may be read of what turns out to be no object: else much "{" would take minutes.
_MAX_WASTE = 2_000_000


class _ScriptFields(BaseModel):
    """The fields of a script that are checked; the result holds everything as the model wrote it."""

    title: Annotated[StrictStr, Field(min_length=1)]
    scenes: Annotated[list[dict[str, Any]], Field(min_length=1)]


def script(text: str) -> dict[str, Any]:
    """Return the script in a model's text: ``{"title": …, "scenes": […], …}``, with all that it wrote there.

    Text around it, such as a code fence, and thinking before it are skipped. Of several scripts the last
    counts: those before it are drafts. Raises AIFailed if there is no script; the message says what is wrong
    with the last JSON object.
    """
    fault = "there is no JSON object in it"
    last: dict[str, Any] | None = None
    for found in _objects(text):
        last = _script_in(found) or last if found is not None else None
        if last is None and found is not None:
            fault = _fault_of(found) or fault
    if last is None:
        raise AIFailed(f"AI provider: the model wrote no script: {fault}")
    return last


def _script_in(value: Any) -> dict[str, Any] | None:
    """Return the last script in a JSON value, which may be the script itself or hold it."""
    if isinstance(value, dict) and not _fault_of(value):
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in reversed(list(items)) if (found := _script_in(item))), None)


def _fault_of(value: dict[str, Any]) -> str:
    """Return what is wrong with a script; nothing if it is one."""
    try:
        _ScriptFields.model_validate(value)
    except ValidationError as error:
        return "; ".join(faults(error))
    return ""


def _objects(text: str) -> Iterator[dict[str, Any] | None]:
    """Yield the outermost objects in a text, outside of thinking; and None if all before it was thinking."""
    waste = 0
    place = 0
    marks = deque(marks_in(text))
    while True:
        while marks and marks[0].start < place:
            marks.popleft()  # those inside an object are part of it
        opening = text.find("{", place)
        if marks and (opening < 0 or marks[0].start < opening):
            mark = marks.popleft()
            place = mark.end if mark.thinking_end is None else mark.thinking_end
            if mark.thinking_end is None:
                yield None
            continue
        if opening < 0 or waste > _MAX_WASTE:
            return
        end, is_whole = end_of_object(text, opening)
        found = object_of(text[opening:end]) if is_whole else None
        if found is None:
            waste += end - opening
            place = opening + 1
        else:
            yield found
            place = end
