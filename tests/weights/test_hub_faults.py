"""Each way in which a hub can fail, in its class: the real client against a hub that fails as told."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autotuned.weights.hub import RemoteFile
from autotuned.weights.hub.faults import Fault, on_disk
from autotuned.weights.hub.process import Hub
from tests.support.fake_hub import FakeHub, model_files

pytestmark = pytest.mark.slow  # each starts processes of its own

MODEL = "acme/model-1B"
SIZE = 300_000
WEIGHTS = "model.safetensors"
CDN = f"cdn/{MODEL}/{WEIGHTS}"
DELAYS_S = (0.0, 0.0, 0.0)


def client(hub: FakeHub, read_s: float = 5.0, delays_s: tuple[float, ...] = DELAYS_S) -> Hub:
    return Hub(hub.url, lambda **_: None, delays_s, read_s)


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    """The hub with one whole model."""
    small, large = model_files(SIZE)
    hub.add(MODEL, small, large=large)
    return hub


def fetch(hub: FakeHub, cache: Path, **options: Any) -> None:
    """List, then fetch the weights."""
    speaking = client(hub, **options)
    listing = speaking.listing(MODEL)
    speaking.fetch(cache, MODEL, listing.commit, [listing.files[WEIGHTS]])


def fault_of(hub: FakeHub, cache: Path, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        fetch(hub, cache, **options)
    return caught.value


@pytest.mark.parametrize(
    ("how", "says", "asked"),
    [
        ({"status": 401, "code": "RepoNotFound"}, "HTTP 401", 1),
        ({"status": 403, "code": "GatedRepo"}, "gated", 1),
        ({"status": 403}, "no permission (HTTP 403)", 1),
        ({"status": 404, "code": "RepoNotFound"}, "no such repository", 1),
        ({"status": 404, "code": "RevisionNotFound"}, "no such revision", 1),
        ({"status": 429}, "HTTP 429", 4),
        ({"status": 429, "retry_after": 3600}, "asks to wait 3600 s", 1),
        ({"status": 500}, "HTTP 500", 4),
        ({"status": 503}, "HTTP 503", 4),
        ({"body": b"<html>log in</html>"}, "makes no sense", 1),
        ({"reset_after": 10}, "interrupted", 4),
        ({"truncate_after": 10}, "interrupted", 4),
    ],
)
def test_fr_d_a_hub_that_does_not_list_is_a_transient_failure(
    published: FakeHub, tmp_path: Path, how: dict[str, Any], says: str, asked: int
) -> None:
    published.fault(f"/api/models/{MODEL}/revision/main", **how)
    fault = fault_of(published, tmp_path)
    assert says in fault.reason
    assert not fault.integrity
    assert len(published.asked) == asked, "only faults of the network are worth another try"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"status": 401}, "HTTP 401"),
        ({"status": 403}, "HTTP 403"),
        ({"status": 404, "code": "EntryNotFound"}, "does not have a file that it lists"),
        ({"status": 429}, "HTTP 429"),
        ({"status": 503}, "HTTP 503"),
        ({"reset_after": 0}, "interrupted"),
        ({"truncate_after": 0}, "interrupted"),
    ],
)
def test_fr_d_a_download_that_fails_is_a_transient_failure(
    published: FakeHub, tmp_path: Path, how: dict[str, Any], says: str
) -> None:
    published.fault(CDN, **how)
    fault = fault_of(published, tmp_path)
    assert says in fault.reason
    assert not fault.integrity


@pytest.mark.parametrize("path", [f"/api/models/{MODEL}/revision/main", CDN])
def test_fr_d_a_hub_that_falls_silent_is_a_transient_failure(
    published: FakeHub, tmp_path: Path, path: str
) -> None:
    published.fault(path, hang=True)
    fault = fault_of(published, tmp_path, read_s=0.2, delays_s=())
    assert "time-out" in fault.reason
    assert not fault.integrity


@pytest.mark.parametrize(
    ("path", "how", "says"),
    [
        (CDN, {"body": b"\0" * SIZE}, ""),
        (CDN, {"length": 1000}, "the hub's list says"),
        (CDN, {"body": b"\0" * 2 * SIZE}, "the hub's list says"),
        (WEIGHTS, {"headers": {"X-Repo-Commit": "d" * 40}}, "now resolves to"),
        (WEIGHTS, {"headers": {"X-Linked-Etag": f'"{"d" * 64}"'}}, "now resolves to"),
    ],
)
def test_fr_d_other_content_than_the_hub_lists_is_an_integrity_failure_and_leaves_nothing(
    published: FakeHub, tmp_path: Path, path: str, how: dict[str, Any], says: str
) -> None:
    published.fault(path, **how)
    fault = fault_of(published, tmp_path)
    assert fault.integrity
    assert says in fault.reason
    assert not list(tmp_path.rglob("*.safetensors"))


def test_fr_d_content_of_the_right_length_and_the_wrong_hash_is_an_integrity_failure(
    published: FakeHub, tmp_path: Path
) -> None:
    whole = published.repos[MODEL].large[WEIGHTS]
    published.fault(CDN, body=whole[:-1] + b"?")
    fault = fault_of(published, tmp_path)
    assert fault.integrity
    assert "SHA-256" in fault.reason
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("cut", ["reset_after", "truncate_after"])
def test_fr_d_a_download_that_breaks_off_goes_on_where_it_was(
    published: FakeHub, tmp_path: Path, cut: str
) -> None:
    published.fault(CDN, times=3, **{cut: 50_000})
    fetch(published, tmp_path)
    (blob,) = (path for path in tmp_path.rglob("*") if path.is_symlink())
    assert blob.read_bytes() == published.repos[MODEL].large[WEIGHTS]
    ranges = [asked for asked in published.asked if "bytes=" in asked and "/cdn/" in asked]
    assert len(ranges) >= 2, "only what is missing is asked for again"


def test_fr_d_a_revision_that_moves_between_list_and_download_changes_nothing(
    published: FakeHub, tmp_path: Path
) -> None:
    speaking = client(published)
    listing = speaking.listing(MODEL)
    speaking.fetch(tmp_path, MODEL, listing.commit, list(listing.files.values()))
    assert all(f"/resolve/{'c' * 40}/" in asked for asked in published.asked if "resolve" in asked)


def test_fr_d_a_hub_that_lists_no_sizes_and_hashes_is_asked_for_each_file(
    published: FakeHub, tmp_path: Path
) -> None:
    speaking = client(published)
    listing = speaking.listing(MODEL)
    files = [RemoteFile(name, None, None, None) for name in listing.files]
    speaking.fetch(tmp_path, MODEL, listing.commit, files)
    names = {path.name for path in tmp_path.rglob("*") if path.is_symlink()}
    assert names == {"config.json", "README.md", "tokenizer.json", WEIGHTS}


def test_fr_d_a_mirror_that_lists_names_only_is_asked_for_its_tree(
    published: FakeHub, tmp_path: Path
) -> None:
    whole = client(published).listing(MODEL)
    published.names_only = True
    assert client(published).listing(MODEL) == whole


def test_fr_d_a_file_whose_name_leads_out_of_the_cache_is_refused(
    published: FakeHub, tmp_path: Path
) -> None:
    speaking = client(published)
    evil = RemoteFile("../../../evil", 1, "a" * 64, None)
    with pytest.raises(Fault) as caught:
        speaking.fetch(tmp_path, MODEL, "c" * 40, [evil])
    assert caught.value.integrity


def test_fr_d_a_hub_whose_commit_leads_out_of_the_cache_is_refused(
    published: FakeHub, tmp_path: Path
) -> None:
    published.repos[MODEL].commit = "../../../evil"
    fault = fault_of(published, tmp_path)
    assert "names no commit" in fault.reason
    assert list(tmp_path.iterdir()) == []


def test_fr_d_no_hub_at_all_is_a_transient_failure(tmp_path: Path) -> None:
    hub = FakeHub(url="http://127.0.0.1:9")
    fault = fault_of(hub, tmp_path)
    assert "no network" in fault.reason
    assert not fault.integrity


@pytest.mark.parametrize("number", [28, 122])
def test_fr_d_a_disk_that_fills_up_is_a_transient_failure(number: int) -> None:
    fault = on_disk(OSError(number, "No space left on device", "/cache/blob"))
    assert fault.reason == "disk full: /cache/blob"
    assert not fault.integrity


def test_fr_d_a_slow_drip_is_borne_and_its_bytes_are_told(
    published: FakeHub, tmp_path: Path
) -> None:
    published.fault(CDN, drip=0.02)
    told: list[int] = []
    speaking = Hub(published.url, lambda **fields: told.append(fields["bytes"]), (), 1.0)
    listing = speaking.listing(MODEL)
    files = [listing.files[WEIGHTS]]

    def fetch_in_vain() -> None:
        with contextlib.suppress(Fault):
            speaking.fetch(tmp_path, MODEL, listing.commit, files)

    work = threading.Thread(target=fetch_in_vain, daemon=True)
    began = time.monotonic()
    work.start()
    while len(told) < 3 and time.monotonic() - began < 20:
        published.released.wait(0.01)
    assert 0 < told[-1] < SIZE
    published.released.set()
    work.join(20)


def test_a_download_goes_on_for_as_long_as_it_gets_on_and_its_rate_counts_what_came(
    published: FakeHub, tmp_path: Path
) -> None:
    published.fault(CDN, times=8, truncate_after=30_000)
    fetch(published, tmp_path)
    (blob,) = (path for path in tmp_path.rglob("*") if path.is_symlink())
    assert blob.read_bytes() == published.repos[MODEL].large[WEIGHTS]

    told: list[dict[str, int]] = []
    speaking = Hub(published.url, lambda **fields: told.append(fields), (), 5.0)
    listing = speaking.listing(MODEL)
    files = [listing.files[WEIGHTS]]
    speaking.fetch(tmp_path, MODEL, listing.commit, files)
    assert (told[-1]["bytes"], told[-1]["received"]) == (files[0].size, 0)


@pytest.mark.parametrize("secret", ["hf_secrettoken"])
def test_the_operators_token_goes_to_the_hub_and_into_no_reason(
    published: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", secret)
    published.fault(CDN, status=403)
    fault = fault_of(published, tmp_path)
    assert secret not in fault.reason
    assert f"Bearer {secret}" in {
        value for headers in published.agents for value in headers.values()
    }
