"""The jobs of ``beeq demo``: ten in five acts, and the checks of their results; with a page, some more.

One film goes through all of the acts, each made from the one before: the script's first scene is the
picture's prompt, the video begins with the picture, the assembly begins with the video, and the webhook
reports the film.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from beeq import BeeqError
from beeq.job_spec import JobOptions
from beeq_cli.demo.peers import DESCRIPTION, SCRIPT, Peers

#: How far a length may be off: encoders round to whole frames and packets.
_TOLERANCE_S = 0.5
_SOUND, _FILM = ["audio"], ["audio", "video"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it goes.

    Attributes:
        clip_s: how long the clips are.
        between_s: from the beginning of one step of an act to that of the next.
        answer_s: until the placeholder answers.
    """

    clip_s: int
    between_s: float
    answer_s: float


FAST = Pace(1, 0, 0)
#: The pace with the page.
SLOW = Pace(4, 1.5, 3.0)
_SCENES_THAT_WAIT = 6


class WrongResult(BeeqError):
    """A job succeeded, and its result is not what it should be."""


@dataclass(frozen=True, slots=True)
class Step:
    """One job of the demo."""

    name: str
    queue_name: str
    data: dict[str, Any]
    #: Looks at the result; says in a few words what was done, or raises WrongResult.
    check: Callable[[Any], str]
    options: JobOptions = field(default_factory=JobOptions)
    #: How it should end during the demo; "delayed": it waits to be run from the page.
    end: Literal["succeeded", "failed", "delayed"] = "succeeded"


class Scenes:
    """The steps, act by act; the clips in the folder ``media`` are ``clip_s`` seconds long each."""

    def __init__(self, media: Path, clips: list[str], clip_s: float, peers: Peers) -> None:
        self._media = media
        self._clips = clips
        self._clip_s = clip_s
        self._peers = peers

    def acts(self, results: Mapping[str, Any]) -> Iterator[list[Step]]:
        """Yield acts of steps; an act is made from ``results``, by step name, of those before it."""
        film_s = self._clip_s * len(self._clips)
        film = partial(self._is_media, wanted_s=film_s, kinds=_FILM)
        sound = partial(self._is_media, wanted_s=film_s, kinds=_SOUND)
        yield [
            _generation("script", self._is_script, parameters={"topic": "bees", "scenes": 2}),
            _media("frame-extract", self._is_frame, self._clips[:1], "last.png"),
            _media("video-stitch", film, self._clips, "film.mp4"),
            _media("audio-stitch", sound, self._clips, "music.m4a"),
        ]
        # If a step failed, the later ones fail, too: they lack its result.
        script = results.get("script", SCRIPT)
        first, *_, last = (scene["description"] for scene in script["scenes"])
        style = {"style": "watercolour"}
        yield [
            _generation("scene-description", self._is_description, prompt=first),
            _generation("image", partial(self._is_image_of, first), prompt=first, parameters=style),
            _media("music-mix", film, ["film.mp4"], "with-music.mp4", parameters={"musicTrack": "music.m4a"}),
        ]
        picture = results.get("image", {}).get("path", "none.png")
        yield [_generation("video", self._is_video, prompt=last, parameters={"imageUrl": picture})]
        assembly = {
            "sceneVideos": [results.get("video", {}).get("path", "none.mp4"), *self._clips[1:]],
            "masterAudio": "music.m4a",
            "outputFormats": ["mp4", "webm"],
        }
        yield [Step("assembly", "video-assembly", assembly, partial(self._are_films, film=film))]
        payload = {"event": "film.ready", "film": results.get("assembly")}
        webhook = {"webhookUrl": f"http://{self._peers.host}/film", "payload": payload, "retryCount": 0}
        yield [Step("webhook", "webhook-processing", webhook, partial(self._is_delivered, payload=payload))]

    def beside(self) -> list[Step]:
        """Return steps for the page: one that fails, one that is due later, some that wait."""

        def webhook(name: str, path: str, options: JobOptions, end: Literal["failed", "delayed"]) -> Step:
            url = f"http://{self._peers.host}/{path}"
            data = {"webhookUrl": url, "payload": {"event": name}, "retryCount": 0}
            return Step(name, "webhook-processing", data, lambda _: "delivered", options, end)

        scenes = (f"Scene {number} of the bees." for number in range(1, _SCENES_THAT_WAIT + 1))
        return [
            webhook("film.begun", "away", JobOptions(retries=1, backoff=("fixed", 3_000)), "failed"),
            webhook("film.forgotten", "later", JobOptions(delay_until="10m"), "delayed"),
            *(
                replace(_generation("scene-description", self._is_description, prompt=scene), name=scene)
                for scene in scenes
            ),
        ]

    # Judging.

    @staticmethod
    def _is_script(result: Any) -> str:
        if result != SCRIPT:
            raise WrongResult("it is not the script that the provider wrote")
        return f"“{result['title']}”, {len(result['scenes'])} scenes, by the placeholder"

    @staticmethod
    def _is_description(result: Any) -> str:
        if result != {"text": DESCRIPTION}:
            raise WrongResult("it is not what the provider wrote")
        return f"{len(result['text'].split())} words, by the placeholder"

    def _is_image(self, result: Any) -> str:
        if not (self._media / result["path"]).read_bytes().startswith(b"\x89PNG"):
            raise WrongResult(f"{result['path']} is not a PNG picture")
        return f"a picture by the placeholder, {result['bytes']:,} bytes"

    def _is_image_of(self, scene: str, result: Any) -> str:
        if scene not in self._peers.picture_prompt:
            raise WrongResult("its prompt is not the scene of the script")
        return self._is_image(result)

    def _is_frame(self, result: Any) -> str:
        self._is_image(result)
        return f"{result['path']}, {result['width']}x{result['height']}, {result['bytes']:,} bytes"

    def _is_video(self, result: Any) -> str:
        self._is_media(result, self._clip_s, _FILM)
        if self._peers.videos != 1:
            raise WrongResult(f"the provider got {self._peers.videos} orders")
        if not self._peers.is_picture_uploaded:
            raise WrongResult("the provider did not get the picture that it begins with")
        return f"a video by the placeholder, {_facts(result)}"

    def _is_media(self, result: Any, wanted_s: float, kinds: list[str]) -> str:
        """Compare a media file's facts with what is wanted, and with the file itself."""
        found = sorted(stream["type"] for stream in result["streams"])
        if found != kinds or abs(result["duration"] - wanted_s) > _TOLERANCE_S:
            raise WrongResult(f"{result['path']} has {found} and lasts {result['duration']:.1f} s")
        if (self._media / result["path"]).stat().st_size != result["bytes"]:
            raise WrongResult(f"{result['path']} has another size")
        return f"{result['path']}, {_facts(result)}"

    @staticmethod
    def _are_films(result: Any, film: Callable[[Any], str]) -> str:
        if sorted(result) != ["mp4", "webm"]:
            raise WrongResult(f"there is {', '.join(sorted(result)) or 'no film'}")
        for facts in result.values():
            film(facts)
        return ", ".join(f"{name}: {_facts(facts)}" for name, facts in result.items())

    def _is_delivered(self, result: Any, payload: dict[str, Any]) -> str:
        if list(self._peers.received.values()) != [payload]:
            raise WrongResult("the receiver did not get one genuine message with the payload")
        return f"delivered and its signature checked, status {result['status']}, {result['duration']} ms"


def _generation(kind: str, check: Callable[[Any], str], **fields: Any) -> Step:
    return Step(kind, "ai-generation", {"type": kind, "parameters": {}, **fields}, check)


def _media(kind: str, check: Callable[[Any], str], inputs: list[str], output: str, **fields: Any) -> Step:
    data = {"type": kind, "inputFiles": inputs, "outputPath": output, **fields}
    return Step(kind, "media-processing", data, check)


def _facts(facts: Any) -> str:
    return f"{facts['duration']:.1f} s, {facts['bytes']:,} bytes"
