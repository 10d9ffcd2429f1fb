"""Servers that can replace each other: the benchmarks' own, under the names that tests use."""

from benchmarks.topologies import (
    NAME,
    Cluster,
    Pair,
    Sentinel,
    ask,
    is_in_step,
    node_id,
    role,
    until,
    writes_held_back,
)

__all__ = [
    "NAME",
    "Cluster",
    "Pair",
    "Sentinel",
    "ask",
    "is_in_step",
    "node_id",
    "role",
    "until",
    "writes_held_back",
]
