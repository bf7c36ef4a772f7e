"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import home as homes

# Tests share the machine with each other: how long an example takes says nothing.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


EXPECTED_SKIPS = (
    "root",
    "nothing can be mounted here",
    "no full device here",
    "there is no swift here",
)
"""Words of reasons that hold on a well-equipped machine too."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped for want of a program fails: nobody would miss it otherwise."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(words in reason for words in EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} is skipped in CI ({call.when}): {reason}"
    return report


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[homes.Home]:
    """An operator's home of its own, clean afterwards; an agent in this process sees no busy machine either."""
    with homes.home() as made:
        monkeypatch.setenv("AUTOTUNED_BUSY_FILE", made.environ["AUTOTUNED_BUSY_FILE"])
        yield made
