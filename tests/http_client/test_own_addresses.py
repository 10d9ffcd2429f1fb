"""A public address that is this machine's own leads to what listens here, and is not called."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from beeq.http_client.own_addresses import is_own

pytestmark = pytest.mark.external  # each starts a program

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.7.6"])
def test_what_the_kernel_keeps_here_is_own(address: str) -> None:
    assert is_own(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111"])
def test_what_leads_elsewhere_or_nowhere_is_not_own(address: str) -> None:
    assert not is_own(address)


def test_a_machine_without_ipv6_has_no_such_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class V4Only(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", V4Only)
    assert not is_own("2606:4700:4700::1111")
    assert is_own("127.0.0.1")


def test_without_a_free_file_nothing_is_taken_for_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_free(*_: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_free)
    with pytest.raises(OSError, match="Too many open files"):
        is_own("8.8.8.8")


#: Run in a network of its own, whose loopback interface has public addresses, as a server's has.
IN_A_NETWORK_OF_ITS_OWN = """
import asyncio, ctypes, fcntl, os, socket, struct

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
flags = CLONE_NEWNET | (CLONE_NEWUSER if os.getuid() else 0)
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(flags):
    raise OSError(ctypes.get_errno(), "unshare")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    for name, address in ((b"lo", "127.0.0.1"), (b"lo:1", OWN)):
        request = struct.pack("16sH2s4s8s", name, socket.AF_INET, b"", socket.inet_aton(address), b"")
        fcntl.ioctl(control, 0x8916, request)  # SIOCSIFADDR
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14s", name, 0x41, b""))  # SIOCSIFFLAGS: up, running

from beeq.errors import Discard
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_processor import webhook


async def main():
    called = []

    def hang_up(_reader, writer):
        called.append(1)
        writer.close()

    inside = await asyncio.start_server(hang_up, "0.0.0.0", 8080)
    processor = WebhookProcessor(ProcessorSettings(webhook_allow_hosts=ALLOW))
    for host in HOSTS:
        try:
            await processor(webhook(f"http://{host}:8080/"))
        except Exception as error:
            print(type(error).__name__, error)
    await processor.close()
    inside.close()
    print("connections:", len(called))


asyncio.run(main())
"""


def run(own: str, hosts: list[str], allow: str = "") -> list[str]:
    """Return what the script above says."""
    given = f"OWN, HOSTS, ALLOW = {own!r}, {hosts!r}, {allow!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", given + IN_A_NETWORK_OF_ITS_OWN],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# The whole of 8.0.0.0/8 is local there: its kernel takes the class of the address for the network.
@pytest.mark.parametrize("host", ["8.8.4.4", "8.8.8.8", "[::ffff:808:404]"])
def test_a_processor_does_not_call_its_machines_public_address(host: str) -> None:
    said, connections = run("8.8.4.4", [host])

    assert said == (
        f"Discard host {host}:8080 is not on the public internet, and BEEQ_WEBHOOK_ALLOW_HOSTS does not allow it"
    )
    assert connections == "connections: 0"


def test_an_own_address_that_is_allowed_is_called() -> None:
    *_, connections = run("8.8.4.4", ["8.8.4.4"], allow="8.8.4.4:8080")
    assert connections == "connections: 1"
