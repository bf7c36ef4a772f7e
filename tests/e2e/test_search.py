"""A search of a server's own knobs with a real server: the defaults first, and the same steps after a crash."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from autotuned.core.plan import plan
from autotuned.core.request import parse as parsed
from autotuned.core.search import Measured, next_cell
from autotuned.descriptions import shipped
from tests.support.home import Home, RpcError, kill, poll
from tests.support.models import write_gguf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None, reason="needs the extra llama"
    ),
]

PATIENCE_S = 300.0


def test_a_search_that_is_killed_goes_on_with_the_steps_it_would_have_taken(home: Home) -> None:
    model = str(write_gguf(home.path / "tiny-1M.gguf"))
    request: dict[str, Any] = {
        "candidate_models": [model],
        "provider": "llama-server",
        "target_context": 300,
        "kv_bits_axis": [None],
        "max_batch_axis": [1],
        "axes": {"threads": [1, 2], "ubatch": [64, 128, 256], "batch": [256, 512]},
        "search": "tpe",
        "trials": 4,
        "seed": 11,
        "stage2_replicates": 1,
        "confirm": True,
        "port": home.port,
    }
    home.start_daemon()
    with pytest.raises(RpcError, match=r"axes\.draft: .*none\.gguf.*no such file"):
        home.rpc("start", **{**request, "axes": {"draft": [str(home.path / "none.gguf")]}})
    run_id = home.rpc("start", **request)["run_id"]
    count = "SELECT count(*) FROM tune_trials WHERE stage = 2"
    poll(lambda: home.sql(count)[0][0] >= 2, "two cells", PATIENCE_S)
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "candidate and guardian are gone")
    home.start_daemon()
    done = home.ctl("start", "--resume", run_id, "--wait", timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    document = home.rpc("result", run_id=run_id)

    server = shipped()["llama-server"]
    planned = plan(parsed(request), (), 48, 0, server)
    space = [knobs.by_name() for knobs in planned.cells]
    tried: list[Measured] = []
    for cell in document["stage2"]:
        place = next_cell(space, tried, 4, 0.02, seed=11)
        assert place is not None
        assert cell["knobs"] == planned.cells[place].published()
        tried.append(Measured(place, cell["tps_median"] if cell["fits"] else None))
    assert len(tried) == 4
    assert document["stage2"][0]["knobs"]["extra"] == dict.fromkeys(request["axes"])
    search = document["search"]
    assert (search["cells"], search["trials"], search["seed"]) == (13, 4, 11)
    assert len(search["untried"]) == 9
    assert document["recommendation"]["knobs"]["extra"].keys() == request["axes"].keys()
    stored = home.sql("SELECT extra_knobs_json FROM tune_trials WHERE stage = 2 ORDER BY id")
    extras = [list(map(list, cell["knobs"]["extra"].items())) for cell in document["stage2"]]
    assert [json.loads(text) for (text,) in stored] == extras
    shown = home.ctl("show")
    assert "4 of 13 cells tried" in shown.stdout
    # The winner met the server's own defaults, unless it is these.
    met = home.sql("SELECT DISTINCT extra_knobs_json FROM tune_trials WHERE stage = 4")
    if any(document["recommendation"]["knobs"]["extra"].values()) or "confirmation" in document:
        assert [[name, None] for name in request["axes"]] in [json.loads(text) for (text,) in met]
        assert document["confirmation"]["against"] == "defaults"
    else:
        assert met == []
    assert "What each knob did" in home.rpc("report", run_id=run_id)["html"]
