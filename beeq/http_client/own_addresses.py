"""Finds out whether an address is this machine's own: a public one would lead to services here.

The kernel is asked each time, because addresses change; nothing is sent. The kernel does not know an address
that a router or a cloud maps to this machine.
"""

import errno
import socket

#: Reserved, and assigned to no network.
_NOBODYS = {socket.AF_INET: "240.0.0.1", socket.AF_INET6: "4000::1"}
#: Any port: none is called.
_PORT = 9


def is_own(address: str) -> bool:
    """Return whether packets to an address stay on this machine; raises OSError if no file is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if _source_to(family, address) == address:
        return True
    # A whole network may be local. With ``ip_nonlocal_bind`` any address can be bound, which proves nothing.
    return _can_bind(family, address) and not _can_bind(family, _NOBODYS[family])


def _source_to(family: socket.AddressFamily, address: str) -> str | None:
    """Return the address that this machine would call from; its own addresses are called from themselves."""
    found = _opened(family)
    if found is None:
        return None
    with found:
        try:
            found.connect((address, _PORT))
        except OSError:
            return None  # no route
        return str(found.getsockname()[0])


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    found = _opened(family)
    if found is None:
        return False
    with found:
        try:
            found.bind((address, 0))
        except OSError:
            return False
        return True


def _opened(family: socket.AddressFamily) -> socket.socket | None:
    """Return a socket that has sent nothing; None if the machine has no such addresses."""
    try:
        return socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
