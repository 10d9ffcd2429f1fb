"""How long a job's backoff would wait, for comparison with Retry-After."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.protocol.options import backoff_ms_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("options", "expected_ms"),
    [
        ({}, 0),
        ({"backoff": None}, 0),
        ({"backoff": "fixed"}, 0),
        ({"backoff": {"strategy": "immediate"}}, 0),
        ({"backoff": {"strategy": "immediate", "delay": 5000}}, 0),
        ({"backoff": {"strategy": "fixed", "delay": 5000}}, 5000),
        ({"backoff": {"strategy": "exponential", "delay": 4000}}, 4000),
        ({"backoff": {"strategy": "their own", "delay": 70}}, 70),
        ({"backoff": {"strategy": "fixed", "delay": 1.5}}, 1),
        ({"backoff": {"strategy": "fixed", "delay": -1}}, 0),
        ({"backoff": {"strategy": "fixed", "delay": True}}, 0),
        ({"backoff": {"strategy": "fixed", "delay": "9"}}, 0),
        ({"backoff": {"strategy": "fixed", "delay": float("inf")}}, 0),
        ({"backoff": {"strategy": "fixed"}}, 0),
    ],
)
def test_the_backoff_is_read_from_the_jobs_options(options: dict[str, Any], expected_ms: int) -> None:
    assert backoff_ms_of(options) == expected_ms
