"""Weights on a small machine: what cannot run is not fetched. The machine is the port that the engine asks."""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.model import MachineFacts
from autotuned.descriptions import catalogue
from autotuned.host.machine import Machine
from tests.engine import inside
from tests.support.fake_hub import FakeHub, model_files
from tests.support.home import Home

SMALL_MACHINE_BYTES = 8 * 2**30


class SmallMachine(Machine):
    """This machine with less memory."""

    def facts(self) -> MachineFacts:
        """RAM of 8 GiB."""
        return replace(super().facts(), ram_bytes=SMALL_MACHINE_BYTES)


async def test_fr_d_of_the_default_list_a_small_machine_fetches_nothing_that_cannot_fit(
    home: Home, hub: FakeHub
) -> None:
    """The real sizes of the catalogue, but the 7B's: it is the first that fits, and is really fetched."""
    first, second, third, *_ = [entry.model for entry in catalogue()["mlx"]]
    small, large = model_files()
    del large["model.safetensors"]
    hub.add(first, small, large=large, declared={"model.safetensors": 18_427_000_000})
    hub.add(second, small, large=large, declared={"model.safetensors": 9_000_000_000})
    whole_small, whole_large = model_files()
    hub.add(third, whole_small, large=whole_large)
    del home.environ["HF_HUB_OFFLINE"]
    home.environ |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
    home.provider({third: {}}, cached=False)
    async with inside.agent(home, machine=SmallMachine()) as agent:
        request = {"kv_bits_axis": [None], "max_batch_axis": [1], "port": home.port}
        run_id = (await agent.start(request))["run_id"]
        await agent.wait(run_id, 60)
        document = await agent.result(run_id)
    assert document["exit_reason"] == "ok"
    assert document["recommendation"] is not None
    assert document["recommendation"]["model"] == third
    assert [entry["reason"] for entry in document["infeasible"]] == [
        "static: weights 17.2 GB > memory 8.0 GB",
        "static: weights 8.4 GB > memory 8.0 GB",
    ]
    rows = home.sql("SELECT fits, notes FROM tune_trials WHERE model IN (?, ?)", first, second)
    assert [fits for fits, _ in rows] == [0, 0]
    fetched = [asked for asked in hub.asked if "/resolve/" in asked or "/cdn/" in asked]
    assert fetched, "the one that fits was fetched"
    assert not [asked for asked in fetched if third not in asked]


async def test_fr_d_the_static_check_can_be_switched_off(home: Home) -> None:
    home.provider({"acme/small-1B": {}})

    class Tiny(SmallMachine):
        def facts(self) -> MachineFacts:
            return replace(super().facts(), ram_bytes=1)

    async with inside.agent(home, machine=Tiny()) as agent:
        refused = await inside.tune(agent, home, "acme/small-1B")
        assert refused["exit_reason"] == "no_feasible"
        assert refused["infeasible"][0]["reason"].startswith("static: weights")
        tried = await inside.tune(agent, home, "acme/small-1B", static_fit_check=False)
        assert tried["exit_reason"] == "ok"
