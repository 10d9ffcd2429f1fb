"""``beeq mirror``: writes the status mirror without working on jobs; or compares it with Redis."""

import asyncio
import signal
import sys

import click

from beeq.mirror.collection import MirrorUnavailable
from beeq.mirror.mirror import Mirror
from beeq.mirror.reconciler import Difference
from beeq.protocol.codec import dumps
from beeq_cli import logs
from beeq_cli.console import complain, escaped, print_bytes
from beeq_cli.options import Common, common_options, mongo_option, option, read_mongo_url
from beeq_cli.running import CANNOT_CONNECT, FAILURE, run

_FLUSH_S = 10.0


@click.command(short_help="Write the status mirror, or check it.")
@option("--check", is_flag=True, help="Compare once, say what differs, and write nothing.")
@option("--json", "as_json", is_flag=True, help="With --check: print an object for each difference.")
@mongo_option()
@common_options()
@click.pass_obj
def mirror(common: Common, check: bool, as_json: bool, mongo_url: str | None) -> None:
    """Write to MongoDB what happens to the jobs of the four built-in queues, until a signal comes.

    Workers with a Mongo URL do this by themselves. With --check, exits with 1 if anything differs.
    """
    url = read_mongo_url(mongo_url)
    if url is None:
        raise click.UsageError("there is no mirror: give --mongo-url, BEEQ_MONGO_URL or MONGODB_URI")
    if as_json and not check:
        raise click.UsageError("--json goes with --check")
    logs.configure("text", is_verbose=common.is_verbose, is_quiet=common.is_quiet)
    made = Mirror(url, redis=common.redis_url(), prefix=common.prefix, is_alone=True)
    sys.exit(run(_check(made, as_json=as_json) if check else _write(made)))


async def _write(mirror_: Mirror) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await mirror_.lag()  # Redis is there; later it may go and come
        mirror_.start()
        logs.logger.info("Mirror started")
        await stopped.wait()
        if mirror_.is_running and not await mirror_.flush(_FLUSH_S):
            logs.logger.warning("the mirror is behind; unmirrored changes stay in Redis")
    finally:
        await mirror_.stop()
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
        click.echo(f"{differing} jobs differ" if differing else "the mirror is as it should be")
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
        print_bytes(dumps(shown))
        return
    where = escaped(f"{difference.queue_name} {difference.job_id}")
    click.echo(f"{where}: in Redis {in_redis or 'nothing'}, in the mirror {in_mirror or 'nothing'}")
