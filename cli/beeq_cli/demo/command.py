"""``beeq demo``: real jobs through a real queue, in a folder of their own that is gone afterwards.

Starts the embedded server and a worker, makes small clips, and runs every kind of job through them
(``scenes.py`` has the steps). Talks to loopback only: the webhook goes to a receiver of the demo's
own, and the AI provider is a placeholder. Succeeds only if every job did what it should.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from beeq import BeeqError, Queue, Stats
from beeq.job_spec import JobSpec
from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.ffmpeg import run as run_ffmpeg
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from beeq.protocol.codec import dumps
from beeq_cli.commands.stats import print_stats
from beeq_cli.console import is_watched, print_bytes, say
from beeq_cli.demo.placeholder import PlaceholderProvider
from beeq_cli.demo.receiver import Receiver
from beeq_cli.demo.scenes import Scenes, Step
from beeq_cli.demo.show import Show, show_for
from beeq_cli.failures import FAILURE
from beeq_cli.options import Common, common_options, option
from beeq_cli.running import connect, run

PREFIX = "beeq-demo"
_CLIP_S = 1
#: Different sizes and rates on purpose: a stitch makes them one.
_CLIPS = (("testsrc2", "320x240", 25), ("mandelbrot", "240x240", 15), ("rgbtestsrc", "160x120", 10))
#: What the placeholder answers for every image.
PICTURE = "picture.png"
_JOB_TIMEOUT_MS = 120_000


@click.command(short_help="Run real jobs in a folder of their own, and show them.")
@option("--json", "as_json", is_flag=True, help="Print one object with the results and the stats.")
@common_options(has_redis=False)
@click.pass_obj
def demo(common: Common, as_json: bool) -> None:
    """Make three small clips, run every kind of job with a worker and a Redis of their own, and show it all.

    Needs no Redis, no network and no AI provider (a placeholder answers), only ffmpeg. Everything lies
    in a temporary folder, and is removed.
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
        say("A Redis of its own, a worker, three small clips, and a placeholder for the AI provider …")
    clips = await _make_clips(media)
    async with (
        Receiver() as receiver,
        PlaceholderProvider(folder / PICTURE, media / clips[-1]) as provider,
        _working(folder, media, receiver, provider) as queues,
    ):
        rehearsal = Rehearsal(queues)
        scenes = Scenes(media, clips, _CLIP_S, receiver, provider)
        with show_for(is_person=is_watched(sys.stderr), is_quiet=is_quiet) as show:
            for act in (scenes.first, scenes.second, scenes.last):
                await rehearsal.perform(act(rehearsal.results), show)
        stats = {name: await queue.stats() for name, queue in queues.items()}
    if as_json:
        by_queue = {name: numbers.shown() for name, numbers in stats.items()}
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
        spec = JobSpec(step.queue_name)
        job = spec.job(queue, spec.completed(step.data))
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
async def _working(
    folder: Path, media: Path, receiver: Receiver, provider: PlaceholderProvider
) -> AsyncIterator[dict[str, Queue]]:
    """Start the server and a worker on each queue; end both with the block."""
    settings = ProcessorSettings(
        media_root=media,
        webhook_secret=receiver.secret,
        webhook_allow_hosts=receiver.host,
        ai_base_url=provider.base_url,
        ai_api_key=provider.key,
        ai_text_model="placeholder",
        ai_image_model="placeholder",
        ai_video_model="placeholder",
        ai_poll_interval_ms=100,
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
    drawn = await run_ffmpeg(
        ["-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1", str(media.parent / PICTURE)], ()
    )
    if drawn.exit_status:
        raise BeeqError(f"ffmpeg made no picture: {drawn.fault}")
    return names
