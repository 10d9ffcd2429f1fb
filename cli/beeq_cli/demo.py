"""``beeq demo``: real jobs through a real queue, in a folder of their own that is gone afterwards.

Starts the embedded server and a worker, makes small clips, and runs jobs of the types that exist
through them. Talks to loopback only. Succeeds only if every job did what it should.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from beeq import BeeqError, Queue, Stats
from beeq.codec import dumps
from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.ffmpeg import run as run_ffmpeg
from beeq.orders import Order
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from beeq_cli.console import is_watched, print_bytes, say
from beeq_cli.failures import FAILURE
from beeq_cli.options import Common, common_options, option
from beeq_cli.receiver import Receiver
from beeq_cli.running import connect, run
from beeq_cli.show import Show, show_for
from beeq_cli.stats import print_stats, stats_object

PREFIX = "beeq-demo"
_CLIP_S = 1
#: Different sizes and rates on purpose: a stitch makes them one.
_CLIPS = (("testsrc2", "320x240", 25), ("mandelbrot", "240x240", 15), ("rgbtestsrc", "160x120", 10))
_JOB_TIMEOUT_MS = 120_000


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


@click.command(short_help="Run real jobs in a folder of their own, and show them.")
@option("--json", "as_json", is_flag=True, help="Print one object with the results and the stats.")
@common_options(has_redis=False)
@click.pass_obj
def demo(common: Common, as_json: bool) -> None:
    """Make three small clips, run jobs on them with a worker and a Redis of their own, and show it all.

    Needs no Redis and no network, only ffmpeg. Everything lies in a temporary folder, and is removed.
    """
    find_ffmpeg()
    folder = Path(tempfile.mkdtemp(prefix="beeq-demo-"))
    try:
        code = run(_demo(folder, as_json=as_json, is_quiet=common.is_quiet))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the server may still be writing its last line there
    sys.exit(code)


async def _demo(folder: Path, *, as_json: bool, is_quiet: bool) -> int:
    media = folder / "media"
    media.mkdir()
    if not is_quiet:
        say("A Redis of its own, a worker, and three small clips …")
    clips = await _make_clips(media)
    async with Receiver() as receiver, _working(folder, media, receiver) as queues:
        rehearsal = Rehearsal(queues)
        with show_for(is_person=is_watched(sys.stderr), is_quiet=is_quiet) as show:
            await rehearsal.perform(_first_steps(clips, media), show)
            await rehearsal.perform(_last_steps(receiver, rehearsal.results), show)
        stats = {name: await queue.stats() for name, queue in queues.items()}
    if as_json:
        by_queue = {name: stats_object(numbers) for name, numbers in stats.items()}
        print_bytes(dumps({"jobs": rehearsal.report, "stats": by_queue}))
    else:
        _print(rehearsal.report, stats)
    return FAILURE if any("error" in job for job in rehearsal.report) else 0


def _print(report: list[dict[str, Any]], stats: dict[str, Stats]) -> None:
    width = max(len(job["name"]) for job in report)
    for job in report:
        outcome = f"FAILED: {job['error']}" if "error" in job else job["done"]
        click.echo(f"{job['name']:<{width}}  {outcome}")
    click.echo()
    print_stats(stats)


class Rehearsal:
    """Puts steps into their queues, and keeps what came of each.

    Attributes:
        results: by step name; steps that failed have none.
        report: one object a step, in order.
    """

    def __init__(self, queues: dict[str, Queue]) -> None:
        self._queues = queues
        self.results: dict[str, Any] = {}
        self.report: list[dict[str, Any]] = []

    async def perform(self, steps: list[Step], show: Show) -> None:
        """Run steps at the same time, and wait for all of them."""
        self.report += await asyncio.gather(*(self._perform(step, show) for step in steps))

    async def _perform(self, step: Step, show: Show) -> dict[str, Any]:
        queue = self._queues[step.queue_name]
        order = Order(step.queue_name)
        job = order.job(queue, order.completed(step.data))
        report: dict[str, Any] = {"name": step.name, "queue": step.queue_name, "id": job.id}
        show.begin(step.name)
        job.on("progress", lambda percent: show.progress(step.name, percent))
        try:
            await job.save()
            result = await job.result(_JOB_TIMEOUT_MS)
            report["done"] = step.check(result)
        except (BeeqError, TimeoutError) as error:
            show.end(step.name, is_well=False)
            return {**report, "error": str(error)}
        self.results[step.name] = result
        show.end(step.name, is_well=True)
        return {**report, "result": result}


@asynccontextmanager
async def _working(folder: Path, media: Path, receiver: Receiver) -> AsyncIterator[dict[str, Queue]]:
    """Start the server and a worker on each queue; end both with the block."""
    settings = ProcessorSettings(
        media_root=media, webhook_secret=receiver.secret, webhook_allow_hosts=receiver.host
    )
    processors = build(settings)
    queues = {name: Queue(name, redis=f"embedded:{folder / 'redis'}", prefix=PREFIX) for name in processors}
    try:
        for name, queue in queues.items():
            await connect(queue)
            queue.process(processors[name], concurrency=2)
        yield queues
    finally:
        await asyncio.gather(*(queue.close() for queue in queues.values()))
        for processor in processors.values():
            await processor.close()


async def _make_clips(media: Path) -> list[str]:
    names = []
    for number, (picture, size, rate) in enumerate(_CLIPS, 1):
        name = f"clip-{number}.mp4"
        source = f"{picture}=s={size}:r={rate},format=yuv420p"
        made = await run_ffmpeg(
            [
                *("-f", "lavfi", "-t", str(_CLIP_S), "-i", source),
                *("-f", "lavfi", "-t", str(_CLIP_S), "-i", f"sine=f={220 * number}"),
                *("-f", "mp4", str(media / name)),
            ],
            (),
        )
        if made.exit_status:
            raise BeeqError(f"ffmpeg made no clip: {made.fault}")
        names.append(name)
    return names


def _first_steps(clips: list[str], media: Path) -> list[Step]:
    def last_frame(result: Any) -> str:
        if not (media / "last.png").read_bytes().startswith(b"\x89PNG"):
            raise Disappointed("last.png is no picture")
        return f"last.png, {result['width']}x{result['height']}, {result['bytes']:,} bytes"

    def film(result: Any) -> str:
        kinds = sorted(stream["type"] for stream in result["streams"])
        if kinds != ["audio", "video"] or abs(result["duration"] - _CLIP_S * len(clips)) > 1:
            raise Disappointed(f"film.mp4 has {kinds} and lasts {result['duration']:.1f} s")
        return f"film.mp4, {result['duration']:.1f} s, {result['bytes']:,} bytes"

    frame = {"type": "frame-extract", "inputFiles": clips[:1], "outputPath": "last.png"}
    stitch = {"type": "video-stitch", "inputFiles": clips, "outputPath": "film.mp4"}
    return [
        Step("frame-extract", "media-processing", frame, last_frame),
        Step("video-stitch", "media-processing", stitch, film),
    ]


def _last_steps(receiver: Receiver, results: dict[str, Any]) -> list[Step]:
    """Return the steps that tell of the first ones."""
    payload = {"event": "film.ready", "film": results.get("video-stitch")}

    def delivered(result: Any) -> str:
        if list(receiver.received.values()) != [payload]:
            raise Disappointed("the receiver did not get one genuine message with the payload")
        return f"delivered and its signature checked, status {result['status']}, {result['duration']} ms"

    webhook = {"webhookUrl": f"http://{receiver.host}/film", "payload": payload, "retryCount": 0}
    return [Step("webhook", "webhook-processing", webhook, delivered)]
