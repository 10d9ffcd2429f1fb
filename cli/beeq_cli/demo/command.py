"""``beeq demo``: real jobs through a real queue, in a folder of their own that is gone afterwards.

Starts the embedded server and a worker, makes small clips, and runs every kind of job through them
(the steps are in ``scenes.py``). Talks to loopback only: ``peers.py`` receives the webhook and is the
placeholder for an AI provider. Succeeds only if every job did what it should.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from beeq import BeeqError, JobFailed, Queue, Stats
from beeq.job_spec import JobSpec
from beeq.media.ffmpeg import FFmpeg, find_ffmpeg
from beeq.media.limits import MediaLimits
from beeq.media.paths import MediaRoot
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from beeq_cli.commands.stats import print_stats
from beeq_cli.console import print_json, print_line, say
from beeq_cli.demo.peers import Peers
from beeq_cli.demo.scenes import FAST, SLOW, Pace, Scenes, Step
from beeq_cli.demo.show import Show, progress_shown
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.running import FAILURE, connect, run

PREFIX = "beeq-demo"
#: Different sizes and rates on purpose: a stitch makes them one.
_CLIPS = (("testsrc2", "320x240", 25), ("mandelbrot", "240x240", 15), ("rgbtestsrc", "160x120", 10))
_CLIP_NAMES = tuple(f"clip-{number}.mp4" for number in range(1, len(_CLIPS) + 1))
_MONGO_URLS = ("BEEQ_MONGO_URL", "MONGODB_URI")
#: What the placeholder answers for every image.
PICTURE = "picture.png"
_JOB_TIMEOUT_MS = 120_000


@click.command(
    short_help="Run real jobs in a folder of their own, and show them.",
    epilog=examples("beeq demo", "beeq demo --page"),
)
@option("--json", "as_json", is_flag=True, help="Print one object with the results and the stats.")
@option(
    "--page",
    "has_page",
    is_flag=True,
    help="Serve the page on a free port, run slowly, and go on until Ctrl-C.",
)
@common_options(has_redis=False)
@click.pass_obj
def demo(common: Common, as_json: bool, has_page: bool) -> None:
    """Make three small clips, run every kind of job with a worker and a Redis of their own, and show it all.

    Needs no Redis, no network and no AI provider (a placeholder answers), only ffmpeg. Everything lies
    in a temporary folder, and is removed. With --page one job fails, which can be retried there, and one
    is due in ten minutes.
    """
    if as_json and has_page:
        raise click.UsageError("--page goes on until Ctrl-C, and --json prints the end: give one of them")
    find_ffmpeg()
    folder = Path(tempfile.mkdtemp(prefix="beeq-demo-"))
    media = folder / "media"
    media.mkdir()
    try:
        if has_page:
            code = run(_demo_with_page(folder, is_quiet=common.is_quiet))
        else:
            code = run(_demo(folder, as_json=as_json, is_quiet=common.is_quiet))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the server may still be writing its last line there
    sys.exit(code)


async def _demo(folder: Path, *, as_json: bool, is_quiet: bool) -> int:
    """Perform it; return the exit code."""
    async with _staged(folder, FAST, is_quiet=is_quiet) as (queues, peers):
        report = await _perform_all(folder / "media", FAST, queues, peers, is_quiet=is_quiet)
        stats = {name: await queue.stats() for name, queue in queues.items()}
    if as_json:
        by_queue = {name: numbers.shown() for name, numbers in stats.items()}
        print_json({"jobs": report, "stats": by_queue})
    else:
        _print(report, stats)
    return _code_of(report)


async def _demo_with_page(folder: Path, *, is_quiet: bool) -> int:
    """Perform it slowly, and serve the page until a signal comes; return the exit code."""
    try:
        from beeq.web import Policy, dashboard, server  # noqa: PLC0415 - an extra
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error
    for name in _MONGO_URLS:
        os.environ.pop(name, None)  # the page would look there for the jobs' documents
    media = folder / "media"
    page = dashboard(redis=_redis(folder), prefixes=[PREFIX], policy=Policy(), media_root=media)
    listener = server.listen(server.address_to_listen_on("127.0.0.1", 0))
    async with _staged(folder, SLOW, is_quiet=is_quiet) as (queues, peers):
        print_line(f"The page is at {server.url_of(listener)}/ until Ctrl-C.")
        serving = asyncio.create_task(server.serve(page, listener, on_serving=lambda: None))
        performing = asyncio.create_task(_perform_all(media, SLOW, queues, peers, is_quiet=is_quiet))
        try:
            await asyncio.wait((serving, performing), return_when=asyncio.FIRST_COMPLETED)
            if not performing.done():
                return 0
            _print(performing.result(), {name: await queue.stats() for name, queue in queues.items()})
            if not is_quiet:
                say("The worker and the page go on until Ctrl-C.")
            await serving
            return _code_of(performing.result())
        finally:
            performing.cancel()
            serving.cancel()
            await asyncio.gather(performing, serving, return_exceptions=True)


@asynccontextmanager
async def _staged(
    folder: Path, pace: Pace, *, is_quiet: bool
) -> AsyncIterator[tuple[dict[str, Queue], Peers]]:
    """Start the peers, the server and the workers; end all with the block."""
    if not is_quiet:
        say("A Redis of its own, a worker, three small clips, and a placeholder for the AI provider …")
    media = folder / "media"
    with Peers(folder / PICTURE, media / _CLIP_NAMES[-1], answer_s=pace.answer_s) as peers:
        async with _working(folder, media, peers, pace) as queues:
            yield queues, peers


async def _perform_all(
    media: Path, pace: Pace, queues: dict[str, Queue], peers: Peers, *, is_quiet: bool
) -> list[dict[str, Any]]:
    """Make the clips and perform all acts; return what the demo reports of each job."""
    await _make_clips(media, pace.clip_s)
    report: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    scenes = Scenes(media, list(_CLIP_NAMES), pace.clip_s, peers)
    with progress_shown(is_quiet=is_quiet) as show:
        for number, act in enumerate(scenes.acts(results)):
            jobs = [
                _perform(step, queues[step.queue_name], show, begins_s=pace.between_s * place)
                for place, step in enumerate(act)
            ]
            if pace is SLOW and number == 0:
                jobs += [_perform(step, queues[step.queue_name], show) for step in scenes.beside()]
            report += await asyncio.gather(*jobs)
            results |= {job["name"]: job["result"] for job in report if "result" in job}
    return report


def _redis(folder: Path) -> str:
    return f"embedded:{folder / 'redis'}"


def _code_of(report: list[dict[str, Any]]) -> int:
    return FAILURE if any("error" in job for job in report) else 0


def _print(report: list[dict[str, Any]], stats: dict[str, Stats]) -> None:
    width = max(len(job["name"]) for job in report)
    for job in report:
        outcome = f"FAILED: {job['error']}" if "error" in job else job["done"]
        print_line(f"{job['name']:<{width}}  {outcome}")
    print_line()
    print_stats(stats)


async def _perform(step: Step, queue: Queue, show: Show, *, begins_s: float = 0) -> dict[str, Any]:
    """Run a step to its end; return what the demo reports of it."""
    await asyncio.sleep(begins_s)
    spec = JobSpec(step.queue_name, step.options)
    job = spec.job(queue, spec.completed(step.data))
    report: dict[str, Any] = {"name": step.name, "queue": step.queue_name, "id": job.id}

    def on_progress(percent: Any) -> None:
        if isinstance(percent, int | float):
            show(step.name, percent, f"{percent:.0f} %")

    show(step.name, 0, "queued")
    job.on("progress", on_progress)
    try:
        await job.save()
        if step.end == "delayed":
            return report | {"done": "is due later: Run now, on the page, does it at once"}
        result = await job.result(_JOB_TIMEOUT_MS)
        report |= {"done": step.check(result), "result": result}
    except (BeeqError, TimeoutError) as error:
        is_meant = step.end == "failed" and isinstance(error, JobFailed)
        report |= {"done": f"failed, as it should: {error}"} if is_meant else {"error": str(error)}
    show(step.name, 100, "failed" if "result" not in report else "done")
    return report


@asynccontextmanager
async def _working(folder: Path, media: Path, peers: Peers, pace: Pace) -> AsyncIterator[dict[str, Queue]]:
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
        ai_poll_interval_ms=100 + round(pace.answer_s * 1000),
    )
    processors = build(settings)
    queues = {name: Queue(name, redis=_redis(folder), prefix=PREFIX) for name in processors}
    try:
        for name, queue in queues.items():
            await connect(queue)
            queue.process(processors[name], concurrency=2)
        yield queues
    finally:
        await asyncio.gather(*(queue.close() for queue in queues.values()))
        for processor in processors.values():
            await processor.close()


async def _make_clips(media: Path, clip_s: int) -> None:
    for number, (name, (picture, size, rate)) in enumerate(zip(_CLIP_NAMES, _CLIPS, strict=True), 1):
        await _draw(
            media / name,
            *("-f", "lavfi", "-t", str(clip_s), "-i", f"{picture}=s={size}:r={rate},format=yuv420p"),
            *("-f", "lavfi", "-t", str(clip_s), "-i", f"sine=f={220 * number}", "-f", "mp4"),
        )
    one_picture = ("-frames:v", "1", "-c:v", "png", "-f", "image2", "-update", "1")
    await _draw(media.parent / PICTURE, "-f", "lavfi", "-i", "testsrc=s=64x64", *one_picture)


async def _draw(path: Path, *arguments: str) -> None:
    folder = MediaRoot(path.parent)
    with folder.creating(folder.locate(path.name)) as new:
        made = await FFmpeg(MediaLimits()).run([*arguments, new.url], [new.fd], media_s=SLOW.clip_s)
        if made.exit_status:
            raise BeeqError(f"ffmpeg did not make {path.name}: {made.fault}")
        new.publish()
