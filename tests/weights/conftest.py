"""A hub of its own for each test, and the environment of an operator whose cache is empty."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuned.weights.hub.session import QUIET
from tests.support.fake_hub import FakeHub, fake_hub

os.environ |= QUIET  # before anything here imports the library, as the agent does for its process


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub on loopback."""
    with fake_hub() as made:
        yield made


@pytest.fixture
def environ(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """What the agent would be started with."""
    return {
        "HOME": str(tmp_path),
        "PATH": os.environ.get("PATH", os.defpath),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "*",
    }
