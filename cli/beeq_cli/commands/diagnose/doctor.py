"""``beeq doctor``: diagnoses Redis, the queues and this machine, and repairs its findings on request."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from beeq import Finding, Queue
from beeq.jobs import JOB_TYPES
from beeq.operations.queue_names import find_queue_names
from beeq_cli.commands.diagnose.machine import check_machine
from beeq_cli.commands.operate.agreement import agreed, refuse_unasked
from beeq_cli.console import print_json, print_line, say
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.running import FAILURE, explained, opened, queues_to_look_into, run

#: The subjects of findings on the server and this machine, in front of their lines.
_SERVER, _MACHINE = "Redis", "this machine"


@dataclass(frozen=True, slots=True)
class _Found:
    """A finding, its subject, and the queue by which it can be repaired."""

    about: str
    queue: Queue | None
    finding: Finding


@click.command(
    short_help="Say what is wrong with Redis, queues and this machine, and repair it.",
    epilog=examples(
        "beeq doctor greetings || echo 'look at what it says'",
        "beeq doctor --fix --yes || echo 'some is left'",
    ),
)
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@click.option("--fix", "is_fixing", is_flag=True, help="Repair what can be repaired, once that was agreed.")
@click.option("--yes", "is_agreed", is_flag=True, help="Repair without asking.")
@option("--json", "as_json", is_flag=True, help="Print an object a line.")
@common_options()
@click.pass_obj
def doctor(
    common: Common,
    /,
    queue_names: tuple[str, ...],
    is_fixing: bool,
    is_agreed: bool,
    as_json: bool,
) -> None:
    """Look for what is wrong with Redis, with each QUEUE (all of them, unless named), and with ffmpeg here.

    It says what --fix would change, and that changes nothing else: each id is looked at again before it is
    touched, and left alone where it has moved. Exits with 1 if there are problems; what is only worth knowing
    is a "note". Up to two million ids of each list are looked at, in pages.
    """
    if "" in queue_names:
        raise click.UsageError("QUEUE is empty")
    if is_agreed and not is_fixing:
        raise click.UsageError("--yes goes with --fix")
    if is_fixing and not is_agreed:
        refuse_unasked("doctor --fix", does="repairs", to_see="leave --fix out to see what it would do")
    sys.exit(
        run(
            _doctor(common, list(dict.fromkeys(queue_names)), is_fixing, is_agreed=is_agreed, as_json=as_json)
        )
    )


async def _doctor(
    common: Common, names: list[str], is_fixing: bool, *, is_agreed: bool, as_json: bool
) -> int:
    found = [_Found(_MACHINE, None, each) for each in await check_machine()]
    (first,) = queues_to_look_into([names[0] if names else next(iter(JOB_TYPES))], common)
    async with opened(first):
        if not names:
            names, is_complete = await find_queue_names(
                first.pipeline, first.settings.prefix, registry=first.keys.queues
            )
            if not is_complete and not common.is_quiet:
                say("Not all of Redis's keys could be looked at; name further queues")
        with _progress(is_quiet=common.is_quiet) as report:
            found += [_Found(_SERVER, first, each) for each in await first.diagnose_server()]
            for name in names:
                found += await _of_queue(common, name, report)
        for each in found:
            _show(each, as_json=as_json, is_quiet=common.is_quiet)
        problems = [each for each in found if each.finding.is_problem]
        fixable = [each for each in problems if each.finding.fix]
        if is_fixing and fixable:
            if not (is_agreed or agreed(f"do what --fix says of {len(fixable)} of these?")):
                return FAILURE
            repaired = await _repair(common, fixable, as_json=as_json)
            return 0 if repaired == problems else FAILURE
    if not (as_json or common.is_quiet):
        _sum_up(len(names), problems, fixable)
    return FAILURE if problems else 0


async def _of_queue(common: Common, name: str, report: Callable[[str, int], None]) -> list[_Found]:
    (queue,) = queues_to_look_into([name], common)
    async with opened(queue):
        findings = await queue.diagnose(on_looked=lambda looked_at: report(name, looked_at))
    return [_Found(name, queue, each) for each in findings]


async def _repair(common: Common, fixable: Sequence[_Found], *, as_json: bool) -> list[_Found]:
    """Repair each finding; return those that were repaired completely."""
    repaired = []
    for each in fixable:
        assert each.queue is not None  # noqa: S101 - nothing of this machine can be repaired
        finding = each.finding
        try:
            (queue,) = queues_to_look_into([each.queue.name], common)
            async with opened(queue):
                count = await queue.repair([finding])
        except Exception as error:  # noqa: BLE001 - one that fails leaves the others
            message, _code = explained(error)
            say(f"Error: {each.about}: {finding.kind}: {message}")
            continue
        if count >= max(1, len(finding.moves)):
            repaired.append(each)
        if as_json:
            print_json({"about": each.about, "kind": finding.kind, "fixed": count})
        elif not common.is_quiet:
            of = f" of {len(finding.moves)}; the others have moved" if count < len(finding.moves) else ""
            print_line(f"fixed {each.about}: {finding.kind}: {count}{of}")
    return repaired


def _show(found: _Found, *, as_json: bool, is_quiet: bool) -> None:
    finding = found.finding
    if as_json:
        print_json(_object(found))
    elif not is_quiet:
        note = "" if finding.is_problem else "note: "
        print_line(f"{note}{found.about}: {finding.text}")
        if finding.fix:
            print_line(f"  --fix {finding.fix}")


def _object(found: _Found) -> dict[str, Any]:
    finding = found.finding
    return {
        "about": found.about,
        "kind": finding.kind,
        "problem": finding.is_problem,
        "text": finding.text,
        "fix": finding.fix or None,
        "count": finding.count,
        "ids": finding.ids,
    }


def _sum_up(queues: int, problems: Sequence[_Found], fixable: Sequence[_Found]) -> None:
    where = f"Redis, {queues} {'queue' if queues == 1 else 'queues'} and this machine"
    if not problems:
        print_line(f"no problem found: {where} were looked at")
        return
    rest = f"; --fix repairs {len(fixable)}" if fixable else ""
    print_line(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found{rest}")


@contextmanager
def _progress(*, is_quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """Show the progress, at a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _name, _looked_at: None
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.text import Text  # noqa: PLC0415 - only for a person

    from beeq_cli.console import safe  # noqa: PLC0415 - only for a person

    with Console(stderr=True).status("looking") as status:
        yield lambda name, looked_at: status.update(Text(f"{safe(name)}: {looked_at:,} ids looked at"))
