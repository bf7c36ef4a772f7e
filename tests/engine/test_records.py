"""What is kept of a run, and the document that is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from autotuned.core.request import TuneRequest
from autotuned.documents.noise import MeasuredDocument
from autotuned.engine.run.records import Records
from autotuned.errors import ConfigError
from autotuned.host.machine import Machine
from autotuned.store import runs
from autotuned.store.database import Database
from autotuned.store.runs import Details
from tests.store.worlds import row
from tests.support.documents import stored


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    database = await Database.open(tmp_path / "db.sqlite")
    yield Records(database, Machine())
    await database.close()


async def test_a_document_of_the_first_version_is_as_it_was_with_what_came_later(
    records: Records,
) -> None:
    document = stored("v1-ok")
    details = {"provider": "macprovider", "warnings": ["w"], "document": document}
    await records.database.ask(runs.begin, row("r"), cast("Details", details))
    measured = cast("MeasuredDocument", {"smallest_difference": 0.1})
    await records.database.ask(runs.annotate, "r", warnings=["later"], measured=measured)
    found = await records.result(await records.row("r"), running=False)
    changed = {name for name in document if found.get(name) != document[name]}
    assert changed <= {"warnings", "noise", "applied"}
    assert found["warnings"] == ["w", "later"]
    assert found["noise"] == {**document["noise"], "measured": measured}
    assert (await records.details("r")).get("document") == document


async def test_what_a_run_took_before_it_was_cut_off_counts_once_however_often_it_goes_on(
    records: Records,
) -> None:
    begun: Details = {"warnings": ["w"], "earlier_s": 10.0, "total_s": 15.0, "alternates": ["x"]}
    await records.database.ask(runs.begin, row("r"), begun)
    for _ in range(2):
        await records.reopen("r")
        assert await records.details("r") == {"warnings": ["w"], "earlier_s": 15.0}


async def test_a_refused_request_has_its_reason_in_its_document(records: Records) -> None:
    await records.refuse("r", TuneRequest(), ConfigError("port", 0, "is no port"))
    found = await records.result(await records.row("r"), running=False)
    assert found["error"] == {"code": "config_error", "message": "port: 0 is no port"}
    assert (found["exit_reason"], found["state"]) == ("config_error", "finished")
    assert found["ended_at"] is not None


async def test_a_run_that_its_agent_has_not_outlived_says_so(records: Records) -> None:
    await records.database.ask(runs.begin, row("r"), {"provider": "mlx-lm"})
    found = await records.result(await records.row("r"), running=False)
    assert found["error"] is not None
    assert "ended before" in found["error"]["message"]
