"""Weights are fetched, checked and remembered, through the real process and the real client."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuned.core.model import Failure, FailureKind, WeightsFormat
from autotuned.weights.cache import Weights, hub_cache
from autotuned.weights.hub.session import Patience
from autotuned.weights.plan import outlook
from autotuned.weights.prewarm import Prewarmer
from autotuned.weights.verified import Ledger
from tests.support.fake_hub import FakeHub, model_files
from tests.support.home import poll

pytestmark = pytest.mark.slow  # each starts processes of its own

MODEL = "acme/model-1B"
PATIENCE = Patience((0.01, 0.01, 0.01), (0.01, 0.01, 0.01), 5.0)
MIB = 2**20


def prewarmer(environ: dict[str, str], patience: Patience = PATIENCE) -> Prewarmer:
    return Prewarmer(environ, Ledger(Path(environ["HOME"]) / "weights.json"), patience)


async def prewarm(
    environ: dict[str, str],
    model: str = MODEL,
    form: WeightsFormat = "mlx",
    *,
    memory: int | None = None,
    verify: bool = False,
    events: list[dict[str, Any]] | None = None,
) -> Weights | Failure:
    def report(**fields: Any) -> None:
        if events is not None:
            events.append(fields)

    worker = prewarmer(environ)
    return await worker.prewarm(model, form, report, memory_bytes=memory, verify=verify)


async def test_fr_d_weights_come_into_the_hubs_own_cache_where_the_library_finds_them(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(shards=2)
    hub.add(MODEL, small, large=large)
    events: list[dict[str, Any]] = []
    found = await prewarm(environ, events=events)
    assert isinstance(found, Weights)
    assert found.special_tokens == ("<|special|>",)
    assert found.weights_bytes == sum(len(large[n]) for n in large if n.startswith("model-"))
    from huggingface_hub import snapshot_download

    cache = hub_cache(environ)
    assert Path(snapshot_download(MODEL, cache_dir=cache, local_files_only=True)) == found.path
    assert not (found.path / "README.md").exists(), "only what the provider needs is fetched"
    assert not list(cache.rglob("*.incomplete"))
    assert events[-1]["activity"] == "fetch"
    assert events[-1]["bytes"] == events[-1]["total"] > 0
    assert not any("harness" in asked or "telemetry" in asked for asked in hub.asked)


async def test_fr_d_a_cached_and_complete_model_needs_no_network(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    first = await prewarm(environ)
    hub.asked.clear()
    hub.add(MODEL, small, large=large, commit="d" * 40)  # the hub moves on
    assert await prewarm(environ) == first
    (tmp_path / "weights.json").unlink()
    assert await prewarm(environ) == first, "also where it was checked by somebody else"
    assert hub.asked == []


async def test_fr_d_offline_respects_the_operators_wish_at_once(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    found = await prewarm(environ | {"HF_HUB_OFFLINE": "1"})
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TRANSIENT
    assert "HF_HUB_OFFLINE" in found.reason
    assert hub.asked == []


async def test_fr_d_a_mirror_without_sizes_and_without_a_tree_is_asked_file_by_file(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(shards=2)
    hub.add(MODEL, {**small, "README.md": b"of no use"}, large=large)
    hub.names_only = True
    hub.fault("/tree/" + "c" * 40, status=404)
    found = await prewarm(environ)
    assert isinstance(found, Weights), found
    assert hub.sent_of("README.md") == 0


async def test_fr_d_an_interrupted_download_goes_on_where_it_was(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(MIB)
    hub.add(MODEL, small, large=large)
    hub.fault("cdn/acme/model-1B/model.safetensors", drip=0.002)
    work = asyncio.create_task(prewarm(environ))
    poll_sent = asyncio.to_thread(poll, lambda: hub.sent_of("model.safetensors") > 100_000)
    await poll_sent
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not helpers(environ), "the download's process is gone with the cancel"
    parts = list(hub_cache(environ).rglob("*.incomplete"))
    assert [part.stat().st_size > 0 for part in parts] == [True]
    here = parts[0].stat().st_size
    hub.faults.clear()
    hub.sent.clear()
    assert isinstance(await prewarm(environ), Weights)
    assert hub.sent_of("model.safetensors") == len(large["model.safetensors"]) - here
    assert any(f"model.safetensors bytes={here}-" in asked for asked in hub.asked)


async def test_fr_d_a_partial_file_that_rotted_is_fetched_again_whole(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(MIB)
    repo = hub.add(MODEL, small, large=large)
    digest = next(
        file["lfs"]["sha256"] for file in repo.siblings() if file["rfilename"].endswith("rs")
    )
    blobs = hub_cache(environ) / "models--acme--model-1B" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.autotuned.incomplete").write_bytes(b"\0" * 5000)
    assert isinstance(await prewarm(environ), Weights)


async def test_fr_d_a_model_larger_than_the_memory_is_not_fetched(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files()
    del large["model.safetensors"]
    hub.add(MODEL, small, large=large, declared={"model.safetensors": 19_650_000_000})
    found = await prewarm(environ, memory=8 * 2**30)
    assert found == Failure(FailureKind.STATIC, "static: weights 18.3 GB > memory 8.0 GB")
    assert all("/resolve/" not in asked for asked in hub.asked)


async def test_fr_d_a_disk_without_room_and_two_gib_to_spare_is_not_filled(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files()
    del large["model.safetensors"]
    hub.add(MODEL, small, large=large, declared={"model.safetensors": 10**15})
    found = await prewarm(environ)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TRANSIENT
    assert "disk full" in found.reason
    assert all("/resolve/" not in asked for asked in hub.asked)


async def test_fr_d_a_shard_that_the_index_names_and_the_hub_lacks_is_seen_before_any_weight_is_fetched(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(shards=3)
    del large["model-00002-of-00003.safetensors"]
    hub.add(MODEL, small, large=large)
    found = await prewarm(environ)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.INTEGRITY
    assert "model-00002-of-00003" in found.reason
    assert hub.sent_of(".safetensors") == 0


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json"])
async def test_fr_d_a_repository_without_tokenizer_or_config_is_an_integrity_failure(
    hub: FakeHub, environ: dict[str, str], lost: str
) -> None:
    small, large = model_files()
    hub.add(
        MODEL,
        {name: data for name, data in small.items() if name != lost},
        large={name: data for name, data in large.items() if name != lost},
    )
    found = await prewarm(environ)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.INTEGRITY
    assert hub.sent_of(".safetensors") == 0


async def test_fr_d_a_header_that_does_not_parse_is_an_integrity_failure_each_time(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files()
    large["model.safetensors"] = b"\xff" * 4096
    hub.add(MODEL, small, large=large)
    for _ in range(2):
        found = await prewarm(environ)
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.INTEGRITY
        assert found.reason.startswith("pre-warm integrity: ")


async def test_fr_d_a_cached_file_that_rotted_is_found_by_its_blobs_name_without_network(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    found = await prewarm(environ)
    assert isinstance(found, Weights)
    blob = (found.path / "model.safetensors").resolve()
    before = blob.stat()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(bytes(data))
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    hub.asked.clear()
    assert isinstance(await prewarm(environ), Weights), "size and time are what is remembered"
    again = await prewarm(environ, verify=True)
    assert isinstance(again, Failure)
    assert again.kind is FailureKind.INTEGRITY
    assert "SHA-256" in again.reason
    os.utime(blob)
    assert await prewarm(environ) == again, "a changed time is enough to look again"
    assert hub.asked == []


async def test_fr_d_a_half_fetched_revision_of_another_program_is_completed(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files(shards=2)
    hub.add(MODEL, small, large=large)
    found = await prewarm(environ)
    assert isinstance(found, Weights)
    lost = found.path / "model-00002-of-00002.safetensors"
    lost.resolve().unlink()
    hub.sent.clear()
    assert await prewarm(environ) == found
    assert hub.sent_of(".safetensors") == len(large[lost.name])
    lost.resolve().unlink()
    offline = await prewarm(environ | {"HF_HUB_OFFLINE": "1"})
    assert isinstance(offline, Failure)
    assert offline.kind is FailureKind.INTEGRITY, "its index names a shard that is absent"


async def test_fr_d_a_gguf_repository_gives_its_one_file_or_all_its_parts(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    from tests.support.models import Shape, write_gguf

    whole = write_gguf(tmp_path / "tiny.gguf", Shape(width=32, layers=1, heads=2, feed_forward=32))
    data = whole.read_bytes()
    names = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0-00001-of-00002.gguf"]
    large = dict.fromkeys((*names, "m-Q8_0-00002-of-00002.gguf"), data)
    hub.add("acme/m-GGUF", {"README.md": b"#"}, large=large)
    one = await prewarm(environ, "acme/m-GGUF", "gguf")
    assert isinstance(one, Weights)
    assert one.path.name == "m-Q4_K_M.gguf"
    assert list(hub.sent) == ["api", "m-Q4_K_M.gguf"]
    two = await prewarm(environ, "acme/m-GGUF:q8_0", "gguf")
    assert isinstance(two, Weights)
    assert (two.path.name, two.weights_bytes) == ("m-Q8_0-00001-of-00002.gguf", 2 * len(data))
    none = await prewarm(environ, "acme/m-GGUF:Q4_K", "gguf")
    assert isinstance(none, Failure)
    assert none.kind is FailureKind.TRANSIENT


async def test_fr_d_stale_partial_files_are_swept_and_young_ones_are_not(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    blobs = hub_cache(environ) / "models--acme--model-1B" / "blobs"
    blobs.mkdir(parents=True)
    stale, young = blobs / f"{'e' * 64}.0011aabb.incomplete", blobs / "f.0011aabb.incomplete"
    for part in (stale, young):
        part.write_bytes(b"part")
    os.utime(stale, (0, time.time() - 7200))
    assert isinstance(await prewarm(environ), Weights)
    assert (stale.exists(), young.exists()) == (False, True)


async def test_fr_d_a_cache_that_cannot_be_written_is_transient(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    (tmp_path / "file").write_bytes(b"")
    found = await prewarm(environ | {"HF_HOME": str(tmp_path / "file" / "cache")})
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TRANSIENT
    assert str(tmp_path) in found.reason


async def test_fr_d_the_download_ends_with_an_agent_that_is_killed(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    small, large = model_files(MIB)
    hub.add(MODEL, small, large=large)
    hub.fault("cdn/acme/model-1B/model.safetensors", drip=0.002)
    program = (
        "import asyncio, os; from pathlib import Path;"
        "from autotuned.weights.prewarm import Prewarmer; from autotuned.weights.verified import Ledger;"
        "made = Prewarmer(os.environ, Ledger(Path(os.environ['HOME']) / 'weights.json'));"
        f"asyncio.run(made.prewarm({MODEL!r}, 'mlx', print, memory_bytes=None))"
    )
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environ)
    await asyncio.to_thread(poll, lambda: hub.sent_of("model.safetensors") > 50_000)
    agent.kill()
    await agent.wait()
    await asyncio.to_thread(poll, lambda: not helpers(environ), "no download is left")
    hub.faults.clear()
    assert isinstance(await prewarm(environ), Weights)


async def test_the_hubs_address_may_end_with_a_slash(hub: FakeHub, environ: dict[str, str]) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    assert isinstance(await prewarm(environ | {"HF_ENDPOINT": f"{hub.url}//"}), Weights)
    assert not any("//" in asked for asked in hub.asked)


async def test_fr_d_no_name_resolution_is_transient(environ: dict[str, str]) -> None:
    found = await prewarm(environ | {"HF_ENDPOINT": "http://hub.invalid"})
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TRANSIENT
    assert "no network" in found.reason


async def test_fr_d_the_outlook_says_what_would_be_fetched_and_fetches_nothing(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    small, large = model_files()
    hub.add(MODEL, small, large=large)
    hub.add("acme/huge", small, large=large, declared={"model-x.safetensors": 10**13})
    ledger = Ledger(tmp_path / "weights.json")
    models = [MODEL, "acme/huge", "acme/none"]
    looks = await outlook(models, "mlx", environ, ledger, 2**33)
    assert [look.cached for look in looks] == [False] * 3
    wanted = sum(map(len, large.values())) + len(small["config.json"])
    assert (looks[0].fetch_bytes, looks[0].reason) == (wanted, None)
    assert (looks[1].fetch_bytes, looks[1].reason) == (
        0,
        "static: weights 9313.2 GB > memory 8.0 GB",
    )
    assert "no such repository" in (looks[2].reason or "")
    assert all("/resolve/" not in asked for asked in hub.asked)
    await prewarm(environ)
    assert (await outlook([MODEL], "mlx", environ, ledger, None))[0].fetch_bytes == 0


def helpers(environ: dict[str, str]) -> list[psutil.Process]:
    """Live processes of this environment that run the hub's program."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("HOME") == environ["HOME"]
            if ours and "hub_process" in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
