"""What ``beeq demo`` performs: ten jobs in three acts, and how each result is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beeq import BeeqError
from beeq_cli.demo.placeholder import DESCRIPTION, SCRIPT, PlaceholderProvider
from beeq_cli.demo.receiver import Receiver

Results = Mapping[str, Any]

#: Encoders round to whole frames, and sounds to whole packets.
_TOLERANCE_S = 0.5


class Disappointed(BeeqError):
    """A job ended well, and did not do what it should."""


@dataclass(frozen=True, slots=True)
class Step:
    """One job of the demo.

    Attributes:
        name: what it is, for people.
        queue_name: where it goes.
        data: its fields.
        check: looks at the result; says in a few words what was done, or raises Disappointed.
    """

    name: str
    queue_name: str
    data: dict[str, Any]
    check: Callable[[Any], str]


class Scenes:
    """The steps, each act's from the results of those before it."""

    def __init__(
        self, media: Path, clips: list[str], clip_s: float, receiver: Receiver, provider: PlaceholderProvider
    ) -> None:
        self._media = media
        self._clips = clips
        self._film_s = clip_s * len(clips)
        self._clip_s = clip_s
        self._receiver = receiver
        self._provider = provider

    def first(self, _results: Results) -> list[Step]:
        """Generate, and work on the clips."""
        frame = {"type": "frame-extract", "inputFiles": self._clips[:1], "outputPath": "last.png"}
        stitch = {"type": "video-stitch", "inputFiles": self._clips, "outputPath": "film.mp4"}
        sounds = {"type": "audio-stitch", "inputFiles": self._clips, "outputPath": "music.m4a"}
        return [
            _generation("script", self._is_script, parameters={"topic": "bees", "scenes": 2}),
            _generation("scene-description", self._is_description, prompt="A hive at dawn"),
            _generation(
                "image", self._is_image, prompt="A hive at dawn", parameters={"style": "watercolour"}
            ),
            _generation("video", self._is_video, prompt="Bees return", parameters={"imageUrl": "bees.png"}),
            Step("frame-extract", "media-processing", frame, self._is_frame),
            Step("video-stitch", "media-processing", stitch, self._is_film),
            Step("audio-stitch", "media-processing", sounds, self._is_sound),
        ]

    def second(self, results: Results) -> list[Step]:
        """Mix, and assemble the film."""
        mix = {
            "type": "music-mix",
            "inputFiles": ["film.mp4"],
            "outputPath": "with-music.mp4",
            "parameters": {"musicTrack": "music.m4a"},
        }
        generated = results.get("video", {}).get("path", self._clips[0])
        assembly = {
            "sceneVideos": [generated, *self._clips[1:]],
            "masterAudio": "music.m4a",
            "outputFormats": ["mp4", "webm"],
        }
        return [
            Step("music-mix", "media-processing", mix, self._is_film),
            Step("assembly", "video-assembly", assembly, self._are_films),
        ]

    def last(self, results: Results) -> list[Step]:
        """Tell that the film is ready."""
        payload = {"event": "film.ready", "film": results.get("assembly")}

        def delivered(result: Any) -> str:
            if list(self._receiver.received.values()) != [payload]:
                raise Disappointed("the receiver did not get one genuine message with the payload")
            return f"delivered and its signature checked, status {result['status']}, {result['duration']} ms"

        webhook = {"webhookUrl": f"http://{self._receiver.host}/film", "payload": payload, "retryCount": 0}
        return [Step("webhook", "webhook-processing", webhook, delivered)]

    # Judging.

    @staticmethod
    def _is_script(result: Any) -> str:
        if result != SCRIPT:
            raise Disappointed("it is not the script that the provider wrote")
        return f"“{result['title']}”, {len(result['scenes'])} scenes, by the placeholder"

    @staticmethod
    def _is_description(result: Any) -> str:
        if result != {"text": DESCRIPTION}:
            raise Disappointed("it is not what the provider wrote")
        return f"{len(result['text'].split())} words, by the placeholder"

    def _is_image(self, result: Any) -> str:
        if not (self._media / result["path"]).read_bytes().startswith(b"\x89PNG"):
            raise Disappointed(f"{result['path']} is no picture")
        return f"a picture by the placeholder, {result['bytes']:,} bytes"

    def _is_video(self, result: Any) -> str:
        self._lasts(result, self._clip_s, ["audio", "video"])
        if self._provider.orders != 1:
            raise Disappointed(f"the provider got {self._provider.orders} orders")
        return f"a video by the placeholder, {_facts(result)}"

    def _is_frame(self, result: Any) -> str:
        if not (self._media / result["path"]).read_bytes().startswith(b"\x89PNG"):
            raise Disappointed(f"{result['path']} is no picture")
        return f"{result['path']}, {result['width']}x{result['height']}, {result['bytes']:,} bytes"

    def _is_film(self, result: Any) -> str:
        self._lasts(result, self._film_s, ["audio", "video"])
        return f"{result['path']}, {_facts(result)}"

    def _is_sound(self, result: Any) -> str:
        self._lasts(result, self._film_s, ["audio"])
        return f"{result['path']}, {_facts(result)}"

    def _are_films(self, result: Any) -> str:
        if sorted(result) != ["mp4", "webm"]:
            raise Disappointed(f"there is {', '.join(sorted(result)) or 'no film'}")
        for film in result.values():
            self._lasts(film, self._film_s, ["audio", "video"])
        return ", ".join(f"{name}: {_facts(film)}" for name, film in result.items())

    def _lasts(self, facts: Any, wanted_s: float, wanted: list[str]) -> None:
        """Check a media file's facts against those of the file that is there."""
        kinds = sorted(stream["type"] for stream in facts["streams"])
        if kinds != wanted or abs(facts["duration"] - wanted_s) > _TOLERANCE_S:
            raise Disappointed(f"{facts['path']} has {kinds} and lasts {facts['duration']:.1f} s")
        if (self._media / facts["path"]).stat().st_size != facts["bytes"]:
            raise Disappointed(f"{facts['path']} has another size")


def _generation(
    kind: str, check: Callable[[Any], str], *, prompt: str | None = None, parameters: Any = None
) -> Step:
    data = {"type": kind, "prompt": prompt, "parameters": parameters or {}}
    return Step(kind, "ai-generation", {name: value for name, value in data.items() if value}, check)


def _facts(facts: Any) -> str:
    return f"{facts['duration']:.1f} s, {facts['bytes']:,} bytes"
