"""The ports of a worker's metrics and probes: their options, with the page's; opened before a fork."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from beeq_cli.options import Decorated, is_on_command_line, option

if TYPE_CHECKING:
    from socket import socket

    from beeq.metrics.board import Board
    from beeq.metrics.monitor import WorkerMonitor


def monitoring_options() -> Callable[[Decorated], Decorated]:
    """Add ``--web-port``, ``--metrics-port``, ``--health-port`` and ``--bind``."""
    port = click.IntRange(0, 65_535)
    decorators = [
        option(
            "--bind",
            metavar="ADDRESS",
            default="127.0.0.1",
            help="Where they listen [127.0.0.1]; 0.0.0.0 and :: are all addresses of this machine.",
        ),
        option(
            "--health-port",
            metavar="PORT",
            type=port,
            help="Serve /startupz, /readyz and /livez there, for all processes; 0 picks a free one.",
        ),
        option(
            "--metrics-port",
            metavar="PORT",
            type=port,
            help="Serve /metrics for Prometheus there, for all processes; may be the --health-port.",
        ),
        option(
            "--web-port",
            metavar="PORT",
            type=port,
            help="Serve the page there, as beeq web does: beyond this machine only with BEEQ_WEB_TOKEN or "
            "_READ_TOKEN.",
        ),
    ]

    def decorate(command: Decorated) -> Decorated:
        for decorator in decorators:
            command = decorator(command)
        return command

    return decorate


@dataclass(frozen=True, slots=True)
class MonitorPorts:
    """The open ports, and the processes' shared state."""

    board: Board
    metrics: Sequence[socket]
    health: Sequence[socket]

    @property
    def shown(self) -> list[str]:
        """What is served where."""
        what = (("Metrics", self.metrics, "/metrics"), ("Probes", self.health, "/readyz, /livez, /startupz"))
        return [f"{name} on {url_of(each)}{paths}" for name, sockets, paths in what for each in sockets]

    def monitor(self, place: int) -> WorkerMonitor:
        """Return their server for one of the processes."""
        from beeq.metrics.monitor import WorkerMonitor  # noqa: PLC0415 - loads the engine

        return WorkerMonitor(self.board, self.board.places[place], metrics=self.metrics, health=self.health)

    def ended(self, place: int, is_awaited: bool) -> None:
        """Note that a process has ended, and whether another one replaces it."""
        from beeq.metrics.board import ProcessState  # noqa: PLC0415 - loads the engine

        self.board.places[place].free(ProcessState.AWAITED if is_awaited else ProcessState.DONE)


def open_ports(
    metrics_port: int | None, health_port: int | None, address: str, *, processes: int
) -> MonitorPorts | None:
    """Open the requested ports; a port that cannot be opened ends the command."""
    if metrics_port is None and health_port is None:
        return None
    try:
        from beeq.metrics.board import Board  # noqa: PLC0415 - loads the engine

        if metrics_port is not None:
            import beeq.metrics.families  # noqa: F401, PLC0415 - an extra: now, not at the first scrape
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error
    metrics = [] if metrics_port is None else [listener(address, metrics_port)]
    if health_port is not None and health_port == metrics_port:
        health = metrics
    else:
        health = [] if health_port is None else [listener(address, health_port)]
    return MonitorPorts(Board(processes), metrics, health)


def check_bind(*ports: int | None) -> None:
    """Raise UsageError if ``--bind`` is given without a port."""
    if all(port is None for port in ports) and is_on_command_line(click.get_current_context(), "bind"):
        raise click.UsageError("--bind is for --metrics-port, --health-port and --web-port: give one of them")


def listener(address: str, port: int) -> socket:
    """Return a listening socket; a port that cannot be opened ends the command."""
    from beeq.metrics.http import listen  # noqa: PLC0415 - loads the engine

    try:
        return listen(address, port)
    except ValueError:
        raise click.UsageError(f"--bind takes an IP address, not {address!r}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise click.ClickException(f"cannot listen on {address}, port {port}: {reason}") from None


def url_of(listening: socket) -> str:
    """Return the URL of a listening socket."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
