"""What may go wrong with the mirror. None of it ever reaches a job."""

from __future__ import annotations

from beeq.errors import BeeqError


class MirrorUnavailable(BeeqError):
    """MongoDB cannot be reached, or did not do what was asked; messages never hold a password."""
