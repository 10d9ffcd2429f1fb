"""``beeq init``: prints a file that runs or watches an app's workers, or writes it where there is none."""

import getpass
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beeq_cli.commands.init import alerts, cluster, machine
from beeq_cli.commands.init.facts import AppFacts, QueueFacts, checked_app, checked_name, name_of
from beeq_cli.console import print_line, say
from beeq_cli.options import Common, common_options, examples, option, parsed

if TYPE_CHECKING:
    from beeq import Queue

_PORT = click.IntRange(1, 65_535)


@click.command(
    short_help="Print a file that runs or watches workers.",
    epilog=examples(
        "beeq init systemd --app jobs:queue",
        "beeq init keda --app jobs:queue -c 10",
        "beeq init prometheus --out prometheus.yml",
    ),
)
@click.argument("kind", type=click.Choice(["systemd", "docker", "k8s", "keda", "prometheus"]))
@option(
    "--app",
    metavar="MODULE:ATTR",
    callback=parsed(checked_app),
    help="Your own Queue, or list of them, as for beeq worker [the built-in queues].",
)
@option(
    "-c",
    "--concurrency",
    metavar="N",
    type=click.IntRange(min=1),
    help="Jobs at once, per queue and process [what --app says].",
)
@option(
    "-w", "--processes", metavar="N", type=click.IntRange(1, 1024), default=1, help="Worker processes [1]."
)
@option("--metrics-port", metavar="PORT", type=_PORT, default=9464, help="Where Prometheus scrapes [9464].")
@option("--health-port", metavar="PORT", type=_PORT, default=9465, help="Where probes ask [9465].")
@option(
    "--name",
    metavar="NAME",
    callback=parsed(checked_name),
    help="Of the service, the deployment and so on [beeq- and the module of --app].",
)
@option("--image", metavar="IMAGE", help="The container's image [NAME:latest].")
@click.option("--rules", is_flag=True, help="Of prometheus: print the alerts, not what is scraped.")
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write to this file, or under the usual name into this folder; what is there stays as it is.",
)
@common_options()
@click.pass_obj
def init(  # noqa: PLR0917 - one parameter an option
    common: Common,
    kind: str,
    app: str | None,
    concurrency: int | None,
    processes: int,
    metrics_port: int,
    health_port: int,
    name: str | None,
    image: str | None,
    rules: bool,
    out: Path | None,
) -> None:
    """Print a systemd unit, a Dockerfile, a Kubernetes Deployment, KEDA's ScaledObject or Prometheus's files.

    Secrets are named only: each file says where it expects them. Only for keda the app is imported, to know
    its queues. prometheus is two files: --out writes both, beside each other; it prints their paths.
    """
    if rules and kind != "prometheus":
        raise click.UsageError("--rules is for prometheus")
    name = name or name_of(app or "")
    image = image or f"{name}:latest"
    if not image.isprintable() or " " in image:
        raise click.UsageError(f"--image cannot be {image!r}")
    facts = AppFacts(app or "", name, concurrency, processes, metrics_port, health_port, image)
    try:
        files = _files(kind, facts, common)
    except ValueError as error:
        for line in getattr(error, "lines", ()):
            say(line)
        raise click.UsageError(str(error)) from error
    if out is not None:
        _write(files, out)
    else:
        for line in list(files.values())[rules].splitlines():
            print_line(line)


def _files(kind: str, facts: AppFacts, common: Common) -> dict[str, str]:
    """Return the files' contents by their usual names; the first one is printed."""
    write: dict[str, Callable[[], dict[str, str]]] = {
        "systemd": lambda: {
            f"{facts.name}.service": machine.unit(
                facts,
                program=_program(),
                folder=os.getcwd(),  # noqa: PTH109 - text
                user=_user(),
            )
        },
        "docker": lambda: {
            "Dockerfile": machine.dockerfile(
                facts, version=version("beequeue"), has_requirements=Path("requirements.txt").is_file()
            )
        },
        "k8s": lambda: {"k8s.yaml": cluster.deployment(facts)},
        "keda": lambda: {"keda.yaml": cluster.scaled_object(facts, _queues(facts.app, common))},
        "prometheus": lambda: {
            "prometheus.yml": alerts.configuration(facts),
            alerts.RULES_FILE: alerts.rules(facts),
        },
    }
    return write[kind]()


def _queues(app: str, common: Common) -> list[QueueFacts]:
    """Return the app's queues, or the built-in ones."""
    if not app:
        from beeq.jobs import JOB_TYPES  # noqa: PLC0415 - loads the engine

        return [QueueFacts(name, common.prefix, 1) for name in JOB_TYPES]
    from beeq_cli.app import load_queues  # noqa: PLC0415 - loads the engine

    queues: list[Queue] = load_queues(app, common)
    return [QueueFacts(queue.name, queue.settings.prefix, queue.concurrency) for queue in queues]


def _program() -> list[str]:
    """Return how this machine calls ``beeq``, by an absolute path."""
    beside = Path(sys.executable).with_name("beeq")
    found = str(beside) if beside.is_file() else shutil.which("beeq")
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "beeq_cli"]  # noqa: PTH100 - not resolved


def _user() -> str:
    """Return the current user; "" for root: the service gets a user of its own."""
    if os.geteuid() == 0:
        return ""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return ""


def _write(files: dict[str, str], out: Path) -> None:
    """Write the files, all or none of them."""
    first, *_ = files
    paths = {out / name if out.is_dir() else out if name == first else out.with_name(name): text
             for name, text in files.items()}  # fmt: skip
    written: list[Path] = []
    try:
        for path, text in paths.items():
            with path.open("x", encoding="utf-8") as file:  # never over another file
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        reason = "it is there already" if isinstance(error, FileExistsError) else error.strerror
        raise click.ClickException(f"cannot write {error.filename}: {reason}") from None
    for path in paths:
        print_line(str(path))
