"""With ``wait_replicas`` of all replicas a failover loses no confirmed save. One of each kind."""

from __future__ import annotations

import pytest

from benchmarks.failover import FAULTS, FLEETS, GUARDS, measure

pytestmark = pytest.mark.external


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("fleet", FLEETS)
def test_a_failover_loses_no_acknowledged_job(fleet, fault):
    """Saves raise meanwhile, and say that the outcome is unknown."""
    numbers = measure(fleet, fault, GUARDS["wait_replicas=1"], is_quick=True)
    assert numbers["acknowledged"] > 0
    assert numbers["lost"] == 0
    assert set(numbers["raised"]) <= {"NotReplicated", "RedisUnavailable", "RedisSilent"}
