"""Fixtures of the media tests."""

from __future__ import annotations

from functools import partial

import pytest

from tests.media import bombs
from tests.support.warm_start import WarmStart


@pytest.fixture
def attack(warm_start: WarmStart) -> bombs.Attacking:
    """Runs jobs in a process of its own, and prints how they ended and the resources they used."""
    return partial(bombs.attack, warm_start)
