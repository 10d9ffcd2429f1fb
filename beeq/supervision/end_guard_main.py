"""The guard process: it kills the process that started it when nothing inside that can end it.

A script of its own, without beeq and site-packages. It looks at two things:

* The socket to which the system writes the number of each signal that the process gets. A thread there reads
it at once; if numbers stay unread, C code holds the interpreter. One stop signal starts the first limit, a
second one the shorter limit.
* Its standard input: a number is a limit, in s, set by the thread, or by the signal's handler, which some C
code lets run. Then the signals so far were handled, though their numbers stay. The input's end means the
process's end.
"""

import math
import os
import select
import signal
import socket
import sys
import time

_INPUT = 0
_LOOK_S = 0.2
_STOPS = (signal.SIGINT, signal.SIGTERM)


def main(guarded_pid: int, signals: socket.socket, limits_s: tuple[float, float]) -> None:
    """Kill the guarded process when its time is over; return when it has ended by itself."""
    for number in (*_STOPS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    given_end_s = unread_end_s = math.inf
    limits_read = unread = 0
    while True:
        is_watched = unread > 0 or given_end_s < math.inf
        heard = [_INPUT] if is_watched else [_INPUT, signals.fileno()]
        readable, _, _ = select.select(heard, [], [], _LOOK_S if is_watched else None)
        now_s = time.monotonic()
        if _INPUT in readable:
            limits = os.read(_INPUT, 4096).split()
            if not limits:
                return
            limits_read += len(limits)
            given_end_s = min(given_end_s, *(now_s + float(limit) for limit in limits))
            # A signal that comes in between counts as handled, too, and waits for the earlier one's limit.
            unread, unread_end_s = _unread_stops(signals), math.inf
        left = _unread_stops(signals)
        if left > unread:
            unread_end_s = min(unread_end_s, now_s + limits_s[limits_read + left > 1])
        unread = left
        if not unread:
            unread_end_s = math.inf
            if signals.fileno() in readable:
                time.sleep(_LOOK_S)  # another signal is just being read
        if now_s >= min(given_end_s, unread_end_s):
            _kill(guarded_pid)
            return


def _unread_stops(signals: socket.socket) -> int:
    try:
        numbers = signals.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    return sum(number in _STOPS for number in numbers)


def _kill(pid: int) -> None:
    if os.getppid() != pid:
        return  # it has ended
    text = (
        f"worker process {pid} did not stop in time and was killed: C code holds the interpreter;"
        " its jobs are left to a stall check\n"
    )
    os.kill(pid, signal.SIGKILL)
    os.write(2, text.encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), (float(sys.argv[3]), float(sys.argv[4])))
