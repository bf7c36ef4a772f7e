"""The one connection to the one database, owned by one thread.

The loop never waits for a disk: every question is a function run on that thread, in order. Other
programs may read the file meanwhile, so locking stays normal; only this process writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from autotuned.errors import StoreError
from autotuned.store.migrations import migrate, refuse_newer

SETTINGS = (
    "journal_mode = WAL",
    *("foreign_keys = ON", "trusted_schema = OFF"),
    *("fullfsync = ON", "checkpoint_fullfsync = ON"),
)
P = ParamSpec("P")
T = TypeVar("T")
Question = Callable[Concatenate[sqlite3.Connection, P], T]


class Database:
    """An open database. `moved_aside` names the corrupt file that it replaces, where there was one."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        moved_aside: Path | None,
    ):
        self.path, self.moved_aside = path, moved_aside
        self._connection, self._thread = connection, thread
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Open, check, migrate. A corrupt file is moved aside. Raises StoreError naming the path."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            work = asyncio.get_running_loop().run_in_executor(thread, _open_checked, path)
            connection, moved_aside = await work
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(path, connection, thread, moved_aside)

    async def ask(self, question: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `question(connection, ...)` on the database's thread, after all that were asked before.

        Raises StoreError where the file cannot be read or written.
        """
        if self._closed:
            message = f"{self.path}: the store is closed"
            raise StoreError(message, path=str(self.path))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: self._answer(question, *args, **kwargs)
        )

    def _answer(self, question: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return question(self._connection, *args, **kwargs)
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # a dying disk refuses this too
                    self._connection.execute("ROLLBACK")
            raise _translated(self.path, error) from error

    async def close(self) -> None:
        """Fold the log into the file and close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shut)
        self._thread.shutdown(wait=True)

    def _shut(self) -> None:
        with contextlib.suppress(
            sqlite3.Error
        ):  # what cannot be folded in now is replayed at the next start
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """Everything inside, or nothing. `durable`: on the disk before this returns (lease journal, ends of runs)."""
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def insert(db: sqlite3.Connection, table: str, values: Mapping[str, object]) -> int:
    """Write one row, a value a column; its id."""
    columns, marks = ", ".join(values), ", ".join("?" for _ in values)
    row = tuple(values.values())
    return db.execute(f"INSERT INTO {table}({columns}) VALUES ({marks})", row).lastrowid or 0


def json_text(value: object) -> str:
    """A value as a column of JSON holds it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _open_checked(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _translated(path, error) from error
    try:
        return _connect(path), None
    except sqlite3.DatabaseError as error:
        if "not a database" not in str(error) and "malformed" not in str(error):
            raise _translated(path, error) from error
    aside = _move_aside(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        return _connect(path), aside
    except sqlite3.Error as error:
        raise _translated(path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    try:
        if [row[0] for row in connection.execute("PRAGMA quick_check(1)")] != ["ok"]:
            message = "file is not a database: the quick check failed"
            raise sqlite3.DatabaseError(message)
        refuse_newer(connection, str(path))
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}-{number}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def set_aside(path: Path) -> list[Path]:
    """Damaged files that were moved aside and that nobody has acknowledged yet, oldest first."""
    pattern = re.compile(rf"{re.escape(path.name)}\.corrupt-\d+(-\d+)?")
    found = [each for each in path.parent.iterdir() if pattern.fullmatch(each.name)]
    return sorted(each for each in found if not _acknowledged(each).exists())


def acknowledge(path: Path) -> None:
    """Tell no more of the files that were set aside; they stay."""
    for each in set_aside(path):
        _acknowledged(each).touch(mode=0o600)


def _acknowledged(aside: Path) -> Path:
    return aside.with_name(f"{aside.name}.acknowledged")


def _translated(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: {error}: is its folder writable, and is there room on the disk?", path=str(path)
    )
