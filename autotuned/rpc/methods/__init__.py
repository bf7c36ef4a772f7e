"""The table of methods, one module a feature: what each takes, and which piece of the agent answers.

No logic: a method validates its parameters by its model, asks, and hands back what it got.
"""

from __future__ import annotations

from autotuned.rpc import discover
from autotuned.rpc.method import Method, Services
from autotuned.rpc.methods import (
    agent,
    apply,
    events,
    provider,
    quarantine,
    results,
    runs,
    schedule,
    servers,
    weights,
)

__all__ = ["Services", "table"]


def table(services: Services) -> list[Method]:
    """All methods, `rpc.discover` last: it describes the others and itself."""
    every = (agent, runs, apply, results, schedule, events, provider, quarantine, servers, weights)
    methods = [method for module in every for method in module.methods(services)]
    return discover.with_itself(methods)
