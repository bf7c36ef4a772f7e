"""Fixtures that several folders of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import home as homes


@pytest.fixture
def home() -> Iterator[homes.Home]:
    """An operator's home of its own, clean afterwards."""
    with homes.home() as made:
        yield made
