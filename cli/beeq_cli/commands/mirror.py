"""``beeq mirror``: writes the status mirror without working on jobs; compares or repairs it."""

import asyncio
import sys

import click

from beeq.logs.records import logger
from beeq.mirror.collection import MirrorUnavailable
from beeq.mirror.mirror import Mirror
from beeq.mirror.reconciler import Difference
from beeq.process import stop_signals
from beeq_cli import logs
from beeq_cli.console import complain, print_json, print_line
from beeq_cli.options import (
    Common,
    common_options,
    examples,
    log_format_option,
    mongo_option,
    option,
    project_id_option,
    read_mongo_url,
    read_project_id,
)
from beeq_cli.running import CANNOT_CONNECT, FAILURE, run

_FLUSH_S = 10.0


@click.command(
    short_help="Write the status mirror, check it, or repair it.",
    epilog=examples("beeq mirror", "beeq mirror --check --json", "beeq mirror --repair"),
)
@option("--check", is_flag=True, help="Compare once, say what differs, and write nothing.")
@option("--json", "as_json", is_flag=True, help="With --check: print an object for each difference.")
@option("--repair", is_flag=True, help="Write each projectId in the type that is wanted, and end.")
@mongo_option()
@project_id_option()
@log_format_option()
@common_options()
@click.pass_obj
def mirror(  # noqa: PLR0917 - one parameter an option
    common: Common,
    check: bool,
    as_json: bool,
    repair: bool,
    mongo_url: str | None,
    mongo_project_id: str | None,
    log_format: str,
) -> None:
    """Write to MongoDB what happens to the jobs of the four built-in queues, until a signal comes.

    Workers with a Mongo URL do this by themselves. With --check, exits with 1 if anything differs.
    With --repair, documents of jobs that change no more get the projectId that Payload finds them by.
    """
    url = read_mongo_url(mongo_url)
    if url is None:
        raise click.UsageError("there is no mirror: give --mongo-url, BEEQ_MONGO_URL or MONGODB_URI")
    if as_json and not check:
        raise click.UsageError("--json goes with --check")
    if repair and check:
        raise click.UsageError("--check and --repair exclude each other")
    id_type = read_project_id(mongo_project_id)
    logs.set_up(common, log_format)
    made = Mirror(url, redis=common.redis_url(), prefix=common.prefix, is_alone=True, project_id_type=id_type)
    if repair:
        sys.exit(run(_repair(made)))
    sys.exit(run(_check(made, as_json=as_json) if check else _write(made)))


async def _write(mirror_: Mirror) -> int:
    stopped = asyncio.Event()
    with stop_signals(lambda _number: stopped.set()):
        try:
            await mirror_.lag()  # Redis is there; later it may go and come
            mirror_.start()
            logger.info("Mirror started")
            await stopped.wait()
            if mirror_.is_running and not await mirror_.flush(_FLUSH_S):
                logger.warning("the mirror is behind; unmirrored changes stay in Redis")
        finally:
            await mirror_.stop()
    return 0


async def _repair(mirror_: Mirror) -> int:
    try:
        repaired = await mirror_.collection.repair_project_ids()
    except MirrorUnavailable as error:
        complain(str(error))
        return CANNOT_CONNECT
    finally:
        await mirror_.stop()
    print_line(f"{repaired} documents repaired" if repaired else "there was nothing to repair")
    return 0


async def _check(mirror_: Mirror, *, as_json: bool) -> int:
    differing = 0
    try:
        async for difference in mirror_.check():
            differing += 1
            _print(difference, as_json=as_json)
    except MirrorUnavailable as error:
        complain(str(error))
        return CANNOT_CONNECT
    finally:
        await mirror_.stop()
    if not as_json:
        print_line(f"{differing} jobs differ" if differing else "the mirror is as it should be")
    return FAILURE if differing else 0


def _print(difference: Difference, *, as_json: bool) -> None:
    in_redis, in_mirror = (
        None if text is None else text.rpartition("-")[0]
        for text in (difference.in_redis, difference.in_mirror)
    )
    if as_json:
        shown = {
            "queue": difference.queue_name,
            "id": difference.job_id,
            "redis": in_redis,
            "mirror": in_mirror,
        }
        print_json(shown)
        return
    where = f"{difference.queue_name} {difference.job_id}"
    print_line(f"{where}: in Redis {in_redis or 'nothing'}, in the mirror {in_mirror or 'nothing'}")
