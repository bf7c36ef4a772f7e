"""`confirm`: the winner is started again, and what it does not beat is recommended instead of it."""

from __future__ import annotations

from tests.engine import inside
from tests.support.home import Home, Y

SAME = {"tps": 20.0, "ttft_ms": 20}


async def test_a_winner_that_does_not_beat_the_defaults_gives_way_to_them(home: Home) -> None:
    home.provider({Y: {"replicates": [SAME]}})
    async with inside.agent(home) as agent:
        document = await inside.tune(
            agent, home, Y, kv_bits_axis=[8], stage2_replicates=1, confirm=True
        )
    assert document["exit_reason"] == "ok"
    assert len(home.starts()) == 1 + 1 + 4
    answer, meeting = document["recommendation"], document["confirmation"]
    assert answer is not None
    assert (meeting["against"], meeting["verdict"]) == ("defaults", "tie")
    assert answer["knobs"]["kv_bits"] is None
    assert answer["knobs"] == meeting["knobs"]
    assert answer["replicates"] == 2
    assert "--kv-bits" not in answer["serve_command"]
    assert [line for line in document["warnings"] if "recommended instead" in line]
    stages = home.sql("SELECT stage, kv_bits FROM tune_trials ORDER BY id")
    assert stages == [(1, None), (2, 8), (4, 8), (4, None), (4, None), (4, 8)]
