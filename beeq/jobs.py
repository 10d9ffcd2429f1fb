"""The four built-in job types: their fields, the rules for them, and each queue's policy.

Attributes are snake_case, the wire is camelCase, and Python callers may use either. Unknown fields are
kept as they are. Jobs come from strangers: every text and list has a bound. Whether a path may be opened is
decided where it is opened (``beeq.media.paths``).
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from beeq.errors import BeeqError, shortened

#: A path of the system's own length at most.
MAX_PATH_LENGTH = 4096
#: ffmpeg holds all inputs of a call open at once, and 1024 open files are a common limit.
MAX_FILES = 250
MAX_URL_LENGTH = 8192
MAX_NAME_LENGTH = 512
MAX_PROMPT_LENGTH = 1_000_000
#: The most faults of one job that a message lists.
MAX_FAULTS = 20
#: The longest name of a field in a fault, in characters: a stranger may have chosen it.
_MAX_FIELD_LENGTH = 200
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidJob(BeeqError, ValueError):
    """A job's fields are invalid. The message names each fault; ``faults`` has them one by one.

    Of more than ``MAX_FAULTS`` = 20 the first are named, and the message says how many more there are.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults[:MAX_FAULTS])
        more = len(faults) - len(self.faults)
        super().__init__("; ".join([*self.faults, *([f"and {more} more faults"] if more else [])]))


def _text(max_length: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not text:
            raise ValueError("must not be empty")
        if "\0" in text:
            raise ValueError("must not hold a NUL character")
        if _LONE_SURROGATE.search(text):
            raise ValueError("must be valid Unicode")
        if len(text) > max_length:
            raise ValueError(f"must have at most {max_length} characters, not {len(text)}")
        return text

    return check


def _reference(value: Any) -> Any:
    if isinstance(value, str):
        return _text(MAX_NAME_LENGTH)(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("must be text or a whole number")
    return value


def _one_of(literal: Any) -> Callable[[Any], Any]:
    known = get_args(literal)

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in known:
            raise ValueError(f"unknown: {value[:100]!r}; known are {', '.join(known)}")
        return value

    return check


def _filled(items: Any) -> Any:
    """Check a list's length, before its entries: each wrong one is a fault."""
    if isinstance(items, Sized) and not isinstance(items, str | bytes | Mapping):
        if not len(items):
            raise ValueError("must not be empty")
        if len(items) > MAX_FILES:
            raise ValueError(f"must have at most {MAX_FILES} entries, not {len(items)}")
    return items


def _unique(items: list[str]) -> list[str]:
    if len(set(items)) < len(items):
        raise ValueError("must not name a format twice")
    return items


def _moment(value: Any) -> Any:
    """Check a date and time, and keep its text as it was written."""
    if isinstance(value, datetime):
        return iso_text(value)
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date and time in ISO 8601") from None
    return value


def _http_url(url: str) -> str:
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("must not hold spaces or control characters")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not has_host:
        raise ValueError("must be an http or https URL with a host")
    return url


def _number(unit: str, least: float, most: float, *, or_: tuple[Any, ...] = ()) -> Callable[[Any], Any]:
    """Return the check of a number, or one of the values ``or_``, by which the message begins."""

    def check(value: Any) -> Any:
        if any(value is item for item in or_):
            return value
        # No text and no boolean, which Python would take for numbers; comparing refuses NaN.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            others = "".join(f"{str(item).lower()}, " for item in or_ if item is not None)
            raise ValueError(
                f"must be {others}{'or ' * bool(others)}a number of {unit} from {least} to {most}"
            )
        return float(value)

    return check


Seconds = Annotated[float, BeforeValidator(_number("seconds", 0, 3600))]


class MediaParameters(BaseModel):
    """The checked part of a job's ``parameters``; others are left alone.

    Attributes:
        allow_broken: take what is there of an input of which a part is missing, instead of failing.
        music_volume: the gain of the music, in dB, -60 to 20; None is -12 under another sound, 0 without one.
        ducking: lower the music while the other sound is heard: by 12 dB at most, or by another number of dB.
        loop: repeat music that is shorter than what it is mixed into.
        fade_in: the music's fade at its beginning, in seconds.
        fade_out: the music's fade at its end, in seconds.
        fps: pictures a second of the film, 1 to 120 (also 23.976, 29.97, 59.94); by default the highest rate
            of the inputs, 60 at most.
        still_seconds: how long a still is shown as a scene, 0.01 to 3600 seconds.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    allow_broken: StrictBool = False
    music_volume: Annotated[float | None, BeforeValidator(_number("dB", -60, 20, or_=(None,)))] = None
    ducking: Annotated[bool | float, BeforeValidator(_number("dB", 0, 60, or_=(True, False)))] = False
    loop: StrictBool = False
    fade_in: Seconds = 0.0
    fade_out: Seconds = 0.0
    fps: Annotated[float | None, BeforeValidator(_number("pictures a second", 1, 120, or_=(None,)))] = None
    still_seconds: Annotated[float, BeforeValidator(_number("seconds", 0.01, 3600))] = 5.0

    def as_given(self) -> dict[str, Any]:
        """Return what the job asked for, as on the wire."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def _known_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        MediaParameters.model_validate(parameters)
    except ValidationError as error:
        raise ValueError("; ".join(faults(error))) from None
    return parameters


Name = Annotated[StrictStr, AfterValidator(_text(MAX_NAME_LENGTH))]
Reference = Annotated[str | int | None, BeforeValidator(_reference)]
Path = Annotated[StrictStr, AfterValidator(_text(MAX_PATH_LENGTH))]
Paths = Annotated[list[Path], BeforeValidator(_filled)]
Moment = Annotated[StrictStr, BeforeValidator(_moment)]
Url = Annotated[StrictStr, AfterValidator(_text(MAX_URL_LENGTH)), AfterValidator(_http_url)]
AIType = Literal["script", "scene-description", "image", "video"]
MediaType = Literal["video-stitch", "audio-stitch", "music-mix", "frame-extract"]
OutputFormat = Literal["mp4", "webm", "mov"]
Parameters = Annotated[dict[StrictStr, Any], AfterValidator(_known_parameters)]


class BaseJob(BaseModel):
    """The fields that every job has.

    Attributes:
        id: a UUID made by the caller; ``fill`` makes one.
        project_id: the project's name or number.
        user_id: the user's name or number.
        created_at: ISO 8601 text, kept as written; ``fill`` writes the present time.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    id: Name | None = None
    project_id: Reference = None
    user_id: Reference = None
    created_at: Moment | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        for name, field in type(self).model_fields.items():
            if name not in self.model_fields_set and getattr(self, name) is None:
                dumped.pop(name, None)
                dumped.pop(field.alias or name, None)
        return dumped


class AIGenerationJob(BaseJob):
    """Work for the AI provider. Only a script needs no prompt: its parameters may be enough."""

    type: Annotated[AIType, BeforeValidator(_one_of(AIType))]
    prompt: StrictStr | None = Field(default=None, validate_default=True)
    parameters: dict[StrictStr, Any] = {}
    model_id: Name | None = None

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("type") == "script" and not prompt:
            return prompt
        if prompt is None:
            raise ValueError("Field required")
        return _text(MAX_PROMPT_LENGTH)(prompt)


class MediaProcessingJob(BaseJob):
    """One ffmpeg operation on files under the media root."""

    type: Annotated[MediaType, BeforeValidator(_one_of(MediaType))]
    input_files: Paths
    output_path: Path
    parameters: Parameters = Field(default={}, validate_default=True)

    @field_validator("parameters")
    @classmethod
    def _check_music_track(cls, parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.data.get("type") == "music-mix":
            track = parameters.get("musicTrack")
            if not isinstance(track, str):
                raise ValueError("musicTrack must be given, as text")
            try:
                _text(MAX_PATH_LENGTH)(track)
            except ValueError as error:
                raise ValueError(f"musicTrack {error}") from None
        return parameters


class VideoAssemblyJob(BaseJob):
    """Scenes joined in order with the master audio under them, in each of the formats."""

    scene_videos: Paths
    master_audio: Path
    output_formats: Annotated[
        list[Annotated[OutputFormat, BeforeValidator(_one_of(OutputFormat))]],
        BeforeValidator(_filled),
        AfterValidator(_unique),
    ]
    parameters: Parameters | None = None


class WebhookJob(BaseJob):
    """One delivery; ``retry_count`` is not used: the queue counts its own attempts."""

    webhook_url: Url
    payload: dict[StrictStr, Any]
    retry_count: Annotated[StrictInt, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class JobType:
    """The fields of a built-in queue's jobs, and its policy: the options of jobs whose producer gives none.

    ``backoff`` is what ``Queue.enqueue`` takes: a strategy and its delay in ms.
    """

    model: type[BaseJob]
    timeout_ms: int
    retries: int
    backoff: tuple[str, int]


#: The built-in queues.
JOB_TYPES: Mapping[str, JobType] = {
    "ai-generation": JobType(AIGenerationJob, 30 * 60_000, 3, ("exponential", 2000)),
    "media-processing": JobType(MediaProcessingJob, 60 * 60_000, 2, ("exponential", 5000)),
    "video-assembly": JobType(VideoAssemblyJob, 120 * 60_000, 1, ("immediate", 0)),
    "webhook-processing": JobType(WebhookJob, 30_000, 5, ("exponential", 1000)),
}


def validate(queue_name: str, data: Any) -> BaseJob:
    """Check the fields of a job, a dict in camelCase or snake_case, and return it as its model.

    Raises InvalidJob, which names the faults; or ValueError if the queue is not a built-in one.
    """
    check_built_in(queue_name)
    if not isinstance(data, dict):
        raise InvalidJob([f"a job must be an object, not {type(data).__name__}"])
    try:
        return JOB_TYPES[queue_name].model.model_validate(data)
    except ValidationError as error:
        # "from None": the cause's text repeats the input, which may hold secrets.
        raise InvalidJob(faults(error)) from None


def check_built_in(queue_name: str) -> None:
    """Raise a ValueError if ``queue_name`` is not a built-in queue."""
    if queue_name not in JOB_TYPES:
        raise ValueError(f"{queue_name!r} is not a built-in queue; these are {', '.join(JOB_TYPES)}")


def faults(error: ValidationError) -> list[str]:
    """Return each fault as ``field: what is wrong``, without the values."""
    found: dict[str, None] = {}
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        field = shortened(where.lstrip(".") or "job", _MAX_FIELD_LENGTH)
        found[f"{field}: {message[:1].lower()}{message[1:]}"] = None
    return list(found)


def fill(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job with ``id`` (a new UUID) and ``createdAt`` (now, UTC) where they are missing."""
    filled = dict(data)
    if filled.get("id") is None:
        filled["id"] = str(uuid.uuid4())
    if filled.get("createdAt") is None and filled.get("created_at") is None:
        filled["createdAt"] = iso_text(datetime.now(UTC))
    return filled


def iso_text(moment: datetime) -> str:
    """Return a time as JavaScript writes it: in UTC, with milliseconds; a naive one is local time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
