"""The door: only ours, always there, never in the place of something else."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuned.errors import AlreadyRunning, UnsafePath
from autotuned.rpc import server as door
from autotuned.rpc.server import Server
from autotuned.shared import wire
from tests.rpc.served import served, until


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sock-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def refused(path: Path) -> UnsafePath:
    with pytest.raises(UnsafePath) as found:
        await Server(path, []).start()
    assert str(path) in found.value.message or str(path.parent) in found.value.message
    return found.value


async def test_socket_and_folder_are_ours_alone() -> None:
    before = os.umask(0)
    try:
        async with served() as made:
            assert stat.S_IMODE(made.path.lstat().st_mode) == 0o600
            assert stat.S_IMODE(made.path.parent.lstat().st_mode) == 0o700
            assert [entry.name for entry in made.path.parent.iterdir()] == [made.path.name]
        assert not made.path.exists()
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
async def test_a_folder_that_others_may_enter_is_refused_with_the_mend(
    folder: Path, mode: int
) -> None:
    (folder / "run").mkdir()
    (folder / "run").chmod(mode)
    error = await refused(folder / "run" / "s")
    assert f"mode {mode:04o}" in error.message
    assert f"chmod 700 '{folder / 'run'}'" in error.message


async def test_a_symlink_in_the_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "run").symlink_to(folder / "real")
    assert "symlink" in (await refused(folder / "run" / "s")).message


async def test_a_file_in_the_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "run").write_text("")
    await refused(folder / "run" / "s")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
async def test_a_folder_of_another_user_is_refused_with_the_mend(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    os.chown(folder / "run", 12345, -1)
    error = await refused(folder / "run" / "s")
    assert "belongs to uid 12345" in error.message
    assert "chown 0" in error.message


async def test_a_path_too_long_for_a_socket_is_refused_with_limit_and_variable(
    folder: Path,
) -> None:
    error = await refused(folder / ("x" * 120))
    assert "at most 10" in error.message
    assert wire.SOCKET_VARIABLE in error.message
    longest = folder / ("x" * (wire.SUN_PATH_MAX - len(str(folder / "run")) - 1))
    server = Server(folder / "run" / longest.name, [])
    await server.start()
    await server.close()


@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "dangling"])
async def test_what_is_no_socket_is_never_replaced(folder: Path, kind: str) -> None:
    run = folder / "run"
    run.mkdir(mode=0o700)
    match kind:
        case "file":
            (run / "s").write_text("precious")
        case "folder":
            (run / "s").mkdir()
        case "symlink":
            (run / "target").write_text("precious")
            (run / "s").symlink_to(run / "target")
        case _:
            (run / "s").symlink_to(run / "nothing")
    before = (run / "s").lstat()
    assert "is no socket" in (await refused(run / "s")).message
    assert (run / "s").lstat() == before


async def test_a_stale_socket_is_replaced(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "run" / "s"))
    server = Server(folder / "run" / "s", [])
    await server.start()
    await server.close()


async def test_a_socket_at_which_somebody_answers_is_left_to_them() -> None:
    async with served() as made:
        with pytest.raises(AlreadyRunning, match="another program answers"):
            await Server(made.path, []).start()
        assert (await (await made.client()).call("echo"))["result"] == {"value": 0}


async def test_a_removed_socket_comes_back_and_old_clients_stay() -> None:
    async with served(watch_s=0.02) as made:
        old = await made.client()
        await old.call("echo")
        made.path.unlink()
        await until(made.path.exists, "the socket is back")
        assert (await (await made.client()).call("echo"))["result"] == {"value": 0}
        assert (await old.call("echo"))["result"] == {"value": 0}


async def test_a_socket_that_another_has_put_there_is_not_removed_at_the_end(folder: Path) -> None:
    server = Server(folder / "run" / "s", [])
    await server.start()
    (folder / "run" / "s").unlink()
    (folder / "run" / "s").write_text("somebody else's")
    await server.close()
    assert (folder / "run" / "s").read_text() == "somebody else's"


async def test_128_clients_are_served_and_the_next_is_turned_away_until_one_leaves() -> None:
    async with served() as made:
        clients = [await made.client() for _ in range(wire.MAX_CONNECTIONS)]
        for client in clients:
            assert (await client.call("echo"))["result"] == {"value": 0}
        over = await made.client()
        with pytest.raises((ConnectionError, TypeError)):
            assert (await over.call("echo"))["result"] is None
        await clients[0].close()

        async def let_in() -> bool:
            try:
                return bool((await (await made.client()).call("echo"))["result"] == {"value": 0})
            except (ConnectionError, TypeError):
                return False

        async with asyncio.timeout(20):
            while not await let_in():  # noqa: ASYNC110 - nothing tells when a place is free
                await asyncio.sleep(0.01)


async def test_another_users_process_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as made:
        monkeypatch.setattr(door, "is_same_user", lambda _: False)
        stranger = await made.client()
        with pytest.raises((ConnectionError, TypeError)):
            assert (await stranger.call("echo"))["result"] is None


def test_the_user_at_the_other_end_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert door.is_same_user(ours)
    with socket.socket() as other:
        assert not door.is_same_user(other) or os.geteuid() == 0
