"""``beeq demo``: real jobs through a real queue, in a folder of their own that is gone afterwards.

Starts the embedded server and a worker, makes small clips, and runs every kind of job through them
(the steps are in ``scenes.py``). Talks to loopback only: ``peers.py`` receives the webhook and is the
placeholder for an AI provider. Succeeds only if every job did what it should.
"""

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
from beeq.media.paths import MediaRoot
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from beeq_cli.commands.stats import print_stats
from beeq_cli.console import print_json, print_line, say
from beeq_cli.demo.peers import Peers
from beeq_cli.demo.scenes import Scenes, Step
from beeq_cli.demo.show import Show, progress_shown
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.running import FAILURE, connect, run

PREFIX = "beeq-demo"
_CLIP_S = 1
#: Different sizes and rates on purpose: a stitch makes them one.
_CLIPS = (("testsrc2", "320x240", 25), ("mandelbrot", "240x240", 15), ("rgbtestsrc", "160x120", 10))
#: What the placeholder answers for every image.
PICTURE = "picture.png"
_JOB_TIMEOUT_MS = 120_000


@click.command(
    short_help="Run real jobs in a folder of their own, and show them.", epilog=examples("beeq demo")
)
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
    report: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    with Peers(folder / PICTURE, media / clips[-1]) as peers:
        async with _working(folder, media, peers) as queues:
            with progress_shown(is_quiet=is_quiet) as show:
                for steps in Scenes(media, clips, _CLIP_S, peers).acts(results):
                    jobs = (_perform(step, queues[step.queue_name], show) for step in steps)
                    report += await asyncio.gather(*jobs)
                    results |= {job["name"]: job["result"] for job in report if "result" in job}
            stats = {name: await queue.stats() for name, queue in queues.items()}
    if as_json:
        by_queue = {name: numbers.shown() for name, numbers in stats.items()}
        print_json({"jobs": report, "stats": by_queue})
    else:
        _print(report, stats)
    return FAILURE if any("error" in job for job in report) else 0


def _print(report: list[dict[str, Any]], stats: dict[str, Stats]) -> None:
    width = max(len(job["name"]) for job in report)
    for job in report:
        outcome = f"FAILED: {job['error']}" if "error" in job else job["done"]
        print_line(f"{job['name']:<{width}}  {outcome}")
    print_line()
    print_stats(stats)


async def _perform(step: Step, queue: Queue, show: Show) -> dict[str, Any]:
    """Run a step to its end; return what the demo reports of it."""
    spec = JobSpec(step.queue_name)
    job = spec.job(queue, spec.completed(step.data))
    report: dict[str, Any] = {"name": step.name, "queue": step.queue_name, "id": job.id}

    def on_progress(percent: Any) -> None:
        if isinstance(percent, int | float):
            show(step.name, percent, f"{percent:.0f} %")

    show(step.name, 0, "queued")
    job.on("progress", on_progress)
    try:
        await job.save()
        result = await job.result(_JOB_TIMEOUT_MS)
        report |= {"done": step.check(result), "result": result}
    except (BeeqError, TimeoutError) as error:
        report["error"] = str(error)
    show(step.name, 100, "failed" if "error" in report else "done")
    return report


@asynccontextmanager
async def _working(folder: Path, media: Path, peers: Peers) -> AsyncIterator[dict[str, Queue]]:
    """Start the server and a worker on each queue; end both with the block."""
    settings = ProcessorSettings(
        media_root=media,
        webhook_secret=peers.webhook_secret,
        webhook_keys="shared",  # there is one receiver
        webhook_allow_hosts=peers.host,
        ai_base_url=f"http://{peers.host}/v1",
        ai_api_key=peers.ai_key,
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
    names = [f"clip-{number}.mp4" for number in range(1, len(_CLIPS) + 1)]
    for number, (name, (picture, size, rate)) in enumerate(zip(names, _CLIPS, strict=True), 1):
        await _draw(
            media / name,
            *("-f", "lavfi", "-t", str(_CLIP_S), "-i", f"{picture}=s={size}:r={rate},format=yuv420p"),
            *("-f", "lavfi", "-t", str(_CLIP_S), "-i", f"sine=f={220 * number}", "-f", "mp4"),
        )
    one_picture = ("-frames:v", "1", "-c:v", "png", "-f", "image2", "-update", "1")
    await _draw(media.parent / PICTURE, "-f", "lavfi", "-i", "testsrc=s=64x64", *one_picture)
    return names


async def _draw(path: Path, *arguments: str) -> None:
    folder = MediaRoot(path.parent)
    with folder.creating(folder.locate(path.name)) as new:
        made = await run_ffmpeg([*arguments, new.url], [new.fd], media_s=_CLIP_S)
        if made.exit_status:
            raise BeeqError(f"ffmpeg did not make {path.name}: {made.fault}")
        new.publish()
