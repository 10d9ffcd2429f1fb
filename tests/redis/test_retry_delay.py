"""How long to wait after a failure: longer each time, until something has worked."""

from __future__ import annotations

import pytest

from beeq.redis.retry_delay import RetryDelay

pytestmark = pytest.mark.fast


def test_a_delay_grows_with_each_wait_until_it_is_reset():
    delay = RetryDelay(100, 300)
    assert not delay.has_grown
    for next_ms in (200, 300, 300):
        delay.take_s()
        assert (delay.next_ms, delay.has_grown) == (next_ms, True)
    delay.reset()
    assert (delay.next_ms, delay.has_grown) == (100, False)
