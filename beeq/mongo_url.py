"""Mongo URLs: which ones beeq takes. Text only."""

from __future__ import annotations

from urllib.parse import urlsplit

SCHEMES = ("mongodb", "mongodb+srv")


def check_mongo_url(url: str) -> str:
    """Return ``url`` if it is one of MongoDB's.

    Raises:
        ValueError: it is not. The message does not repeat it: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in SCHEMES and bool(parts.netloc.rpartition("@")[2])
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("the Mongo URL must begin with mongodb:// or mongodb+srv://, and name a host")
    return url
