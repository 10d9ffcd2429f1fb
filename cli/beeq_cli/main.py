"""The ``beeq`` command itself: its subcommands, loaded on demand, and the exit codes.

Exit codes: 0 fine, 1 failure, 2 usage, 3 cannot connect, 4 a burst stopped early: too many handlers hang,
5 a burst has left jobs in a paused queue.
"""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from beeq_cli.console import complain, print_line, safe, say
from beeq_cli.options import Common, common_options

#: Where each command lives, and its line in the help: that must not need the engine.
_COMMANDS = {
    "worker": ("beeq_cli.commands.worker", "Work on queues."),
    "enqueue": ("beeq_cli.commands.enqueue", "Put a job into a queue."),
    "stats": ("beeq_cli.commands.stats", "Show how queues are doing."),
    "ps": ("beeq_cli.commands.operate.ps", "Show the workers, and what runs on them for how long."),
    "jobs": ("beeq_cli.commands.operate.listing", "Show the jobs of a queue."),
    "show": (
        "beeq_cli.commands.operate.show",
        "Show one job: where it is, and what came of its attempts.",
    ),
    "explain": ("beeq_cli.commands.diagnose.explain", "Say why a job is where it is."),
    "watch": ("beeq_cli.commands.diagnose.watch", "Watch one job until it has ended."),
    "health": (
        "beeq_cli.commands.diagnose.health",
        "Say by the exit code whether Redis answers and workers take jobs.",
    ),
    "doctor": (
        "beeq_cli.commands.diagnose.doctor",
        "Say what is wrong with Redis, queues and this machine, and repair it.",
    ),
    "retry": ("beeq_cli.commands.operate.acting", "Queue failed jobs again."),
    "run": ("beeq_cli.commands.operate.acting", "Queue delayed jobs now."),
    "cancel": ("beeq_cli.commands.operate.acting", "End jobs, running or not."),
    "remove": ("beeq_cli.commands.operate.acting", "Remove jobs, wherever they are."),
    "purge": ("beeq_cli.commands.operate.purge", "Remove all jobs of a state, or the older ones."),
    "pause": ("beeq_cli.commands.operate.pauses", "Have workers take no jobs from a queue."),
    "resume": ("beeq_cli.commands.operate.pauses", "End the pause of a queue."),
    "web": ("beeq_cli.commands.web", "Serve the page and the HTTP routes."),
    "webhook-secret": (
        "beeq_cli.commands.webhook_secret",
        "Print the key that a webhook's receiver verifies with.",
    ),
    "mirror": ("beeq_cli.commands.mirror", "Write the status mirror, or check it."),
    "init": ("beeq_cli.commands.init.command", "Print a file that runs or watches workers."),
    "demo": ("beeq_cli.demo.command", "Run real jobs in a folder of their own, and show them."),
}


class CommandGroup(click.Group):
    """The group: loads a command when it is called, and turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Load a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one suggest a similar name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], _COMMANDS, n=2, cutoff=0.5)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the commands' lines, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_module, line) in _COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *positional: Any, **options: Any) -> Any:
        """Run the command; as the process's main command end the process, too, even if a thread hangs."""
        try:
            return super().main(args, *positional, **options)
        except SystemExit as end:
            if args is None and "beeq.process" in sys.modules:
                from beeq.process import END_LIMIT_S, LastResort  # noqa: PLC0415 - loads the engine

                code = end.code if isinstance(end.code, int) else int(end.code is not None)
                LastResort(END_LIMIT_S, code=code).begin()
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the command."""
        with _safe_messages():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with _safe_messages():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - a command ends with one line, not with a traceback
            if ctx.ensure_object(Common).is_verbose:
                for line in traceback.format_exc().splitlines():
                    say(line)
            from beeq_cli.running import explained  # noqa: PLC0415 - loads the engine

            if isinstance(error, UnicodeEncodeError) and not _is_text(sys.argv):
                raise click.UsageError("an argument is not valid UTF-8", ctx) from None
            message, code = explained(error)
            complain(message)
            ctx.exit(code)


def _is_text(arguments: Sequence[str]) -> bool:
    try:
        "".join(arguments).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _safe_messages() -> Iterator[None]:
    """Escape click's usage errors: they repeat arguments, which may be untrusted ids."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # its message is the help, of many lines
    except click.ClickException as error:
        vars(error)["message"] = safe(error.message)  # final, to a type checker
        raise


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's signature
    if value:
        from beeq import __version__  # noqa: PLC0415 - loads the engine

        print_line(f"beeq {__version__}")
        ctx.exit()


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@common_options()
def cli() -> None:
    """A fast job queue on Redis, shared with bee-queue's Node peers.

    With no Redis configured, a server of this folder's own keeps its jobs in ./.beeq.
    """
