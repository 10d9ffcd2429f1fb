"""Film scripts: the instructions for the model, and finding the script in its text. No IO."""

import itertools
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from beeq.ai.errors import AIFailed
from beeq.jobs import faults

#: The system message. Providers want the word JSON in a request for JSON.
INSTRUCTIONS = """\
You write scripts for films. Answer with one JSON object and nothing else:
{"title": text, "scenes": [{"title": text, "description": text, "dialogue": text, "duration": number}, …]}
There is one scene at least. Each has a "description": what is seen and what happens. "title",
"dialogue" (all that is said, as one text) and "duration" (in seconds) may be left out.
"""
#: At most so many ``{`` are tried as the script's beginning; the text before it may hold some.
_MAX_OPENINGS = 20
#: Levels of objects and lists. A script needs four; deeper values might break programs that read the result.
_MAX_DEPTH = 50

_Text = Annotated[StrictStr, Field(min_length=1)]


class _SceneFields(BaseModel):
    """One scene; further fields are kept."""

    model_config = ConfigDict(extra="allow")

    title: StrictStr | None = None
    description: _Text
    dialogue: StrictStr | None = None
    duration: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None


class _ScriptFields(BaseModel):
    """The fields of a script that are checked; the result holds the values as the model wrote them."""

    title: _Text
    scenes: Annotated[list[_SceneFields], Field(min_length=1)]


def script(text: str) -> dict[str, Any]:
    """Return the script in a model's text: ``{"title": …, "scenes": […]}``.

    Text around it, such as a code fence, is skipped. Raises AIFailed if there is no script; the message says
    what is wrong with the first JSON object.
    """
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    first_fault = ""
    for opening in itertools.islice(re.finditer(r"\{", text), _MAX_OPENINGS):
        try:
            found, _ = decoder.raw_decode(text, opening.start())
            _ScriptFields.model_validate(found)
            _check_depth(found)
        except ValidationError as error:
            first_fault = first_fault or "; ".join(faults(error))
        except (ValueError, RecursionError):
            continue  # not the beginning of a JSON object, or of one that is nested too deeply
        else:
            return {"title": found["title"], "scenes": found["scenes"]}
    raise AIFailed(
        f"AI provider: the model wrote no script: {first_fault or 'there is no JSON object in it'}"
    )


def _check_depth(value: Any, level: int = 0) -> None:
    if level > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, level + 1)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
