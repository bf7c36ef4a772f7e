"""Fixtures that several folders of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import home as homes

# Tests share the machine with each other: how long an example takes says nothing.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.fixture
def home() -> Iterator[homes.Home]:
    """An operator's home of its own, clean afterwards."""
    with homes.home() as made:
        yield made
