"""Film scripts: the instructions for the model, and finding the script in its text. No IO."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.writing.objects import end_of_object, object_of
from beeq.ai.writing.thinking import marks_in

#: The system message. Providers want the word JSON in a request for JSON.
INSTRUCTIONS = """\
You write scripts for films. Answer with one JSON object and nothing else:
{"title": text, "scenes": [{"title": text, "description": text, "dialogue": text, "duration": number}, …]}
There is one scene at least. Each has a "description": what is seen and what happens. "title",
"dialogue" (all that is said) and "duration" (in seconds) may be left out. More fields, or fields of another
form, are fine where the request asks for them.
"""
SCENES_SETTING = "BEEQ_AI_MAX_SCENES"
#: How many objects are checked.
_MAX_OBJECTS = 20_000
#: How many characters may be read in vain: else a text of many "{" would take minutes.
_MAX_WASTE = 2_000_000


def script(text: str, *, max_scenes: int = 1000) -> dict[str, Any]:
    """Return the script in a model's text: ``{"title": …, "scenes": […], …}``, with all that it wrote there.

    Text around it, such as a code fence, and thinking before it are skipped. Of several scripts the last
    counts: those before it are drafts. Raises AIFailed if there is no script; the message says what is wrong
    with the last JSON object. Raises AIRefused if one has more than ``max_scenes``.
    """
    fault = "there is no JSON object in it"
    last: dict[str, Any] | None = None
    for found in _objects(text):
        last = _script_in(found, max_scenes) or last if found is not None else None
        if last is None and found is not None:
            fault = _fault_of(found, max_scenes) or fault
    if last is None:
        raise AIFailed(f"AI provider: the model wrote no script: {fault}")
    return last


def _script_in(value: Any, max_scenes: int) -> dict[str, Any] | None:
    """Return the last script in a JSON value, which may be the script itself or hold it."""
    if isinstance(value, dict):
        if not _fault_of(value, max_scenes):
            return value
        items = list(value.values())
    else:
        items = value if isinstance(value, list) else []
    # Most values are texts and numbers: no call for each of them.
    holders = (item for item in reversed(items) if isinstance(item, dict | list))
    return next((found for item in holders if (found := _script_in(item, max_scenes))), None)


def _fault_of(value: dict[str, Any], max_scenes: int) -> str:
    """Return the first fault of a script, or "". More is not checked."""
    if missing := next((name for name in ("title", "scenes") if name not in value), None):
        return f"{missing}: field required"
    title, scenes = value["title"], value["scenes"]
    if not isinstance(title, str) or not title:
        wanted = (
            "string should have at least 1 character" if title == "" else "input should be a valid string"
        )
        return f"title: {wanted}"
    if not isinstance(scenes, list) or not scenes:
        wanted = "list should have at least 1 item" if scenes == [] else "input should be a valid list"
        return f"scenes: {wanted}"
    if len(scenes) > max_scenes:
        raise AIRefused(f"AI provider: a script has more than {max_scenes} scenes ({SCENES_SETTING})")
    at = next((at for at, scene in enumerate(scenes) if not isinstance(scene, dict)), None)
    return "" if at is None else f"scenes[{at}]: input should be a valid dictionary"


def _objects(text: str) -> Iterator[dict[str, Any] | None]:
    """Yield the outermost objects in a text, outside of thinking; and None if all before it was thinking."""
    waste = objects = 0
    place = opening = 0
    marks = deque(marks_in(text))
    while True:
        while marks and marks[0].start < place:
            marks.popleft()  # those inside an object are part of it
        if 0 <= opening <= place:
            opening = text.find("{", place)
        if marks and (opening < 0 or marks[0].start < opening):
            mark = marks.popleft()
            place = mark.end if mark.thinking_end is None else mark.thinking_end
            if mark.thinking_end is None:
                yield None
            continue
        if opening < 0 or waste > _MAX_WASTE or objects == _MAX_OBJECTS:
            return
        objects += 1
        end, is_whole = end_of_object(text, opening)
        found = object_of(text[opening:end]) if is_whole else None
        if found is None:
            waste += end - opening
            place = opening + 1
        else:
            yield found
            place = end
