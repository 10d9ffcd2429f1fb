"""Runs a program of Python by the process that has its imports behind it; see ``warm_start.py``.

``python -I -S warm_program.py NAME -m module …``: it imports almost nothing, and so starts at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys


def main(name: str, *arguments: str) -> int:
    """Have the program started, hand signals on to it, and return its exit code, or die by its signal."""
    asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = os.memfd_create("order")
    text = json.dumps([arguments, os.getcwd(), dict(os.environ)])  # noqa: PTH109 - pathlib takes its time to import
    os.write(order, text.encode(errors="surrogatepass"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(f"\0{name}")
        socket.send_fds(line, [b"!"], [order, asks.fileno(), 0, 1, 2])
    asks.close()
    (pid,) = struct.unpack("!i", asked.recv(4))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: os.kill(pid, number))
    code = int(struct.unpack("!i", asked.recv(4))[0])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
