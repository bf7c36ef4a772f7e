"""A log as lines for people: the last ones, those that come, across rotation, with secrets masked.

The agent writes JSON lines; lines that are none (a crash, the operator's own format) are shown as they
are, without what a terminal would act upon.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from autotuned.shared import redaction, wire
from autotuned.shared.text import printable

POLL_S = 0.2
LONGEST_LINE = 64 * 1024
_SHOWN_FIRST = ("timestamp", "level", "logger", "event", "run_id", "exception")


def mask() -> Callable[[str], str]:
    """Masks what this user's environment and configuration hold."""
    return redaction.masker(redaction.known_secrets(os.environ, [provider_config()]))


def provider_config() -> str:
    """The provider's configuration file: of the settings, else beside them."""
    import tomllib

    folder = wire.config_folder()
    try:
        with open(f"{folder}/autotuned.toml", "rb") as file:  # noqa: PTH123
            named = tomllib.load(file).get("apply", {}).get("config")
    except (OSError, ValueError, AttributeError):
        named = None
    return os.path.expanduser(named) if isinstance(named, str) else f"{folder}/config.yaml"  # noqa: PTH111


def last(path: Path, count: int) -> list[str]:
    """The last `count` lines, those of the files that were rotated away before included. Raises OSError."""
    kept: deque[str] = deque(maxlen=count)
    for part in _parts(path):
        with part.open("rb") as file:
            kept.extend(_text(line) for line in file)
    return list(kept)


def _parts(path: Path) -> list[Path]:
    """The log and the one before it, oldest first."""
    before = path.with_name(f"{path.name}.1")
    return [part for part in (before, path) if part.exists()] or [path]


def follow(path: Path, count: int) -> Generator[str, None, None]:
    """The last `count` lines, then every further one, for ever; a rotated log is read to its end first."""
    file = None
    try:
        while file is None:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                time.sleep(POLL_S)
        yield from _tail(path, file, count)
        rest = b""
        while True:
            data = file.readline(LONGEST_LINE)
            rest += data
            if rest.endswith(b"\n") or len(rest) >= LONGEST_LINE:
                yield _text(rest)
                rest = b""
            elif not data:
                if _replaced(path, file):
                    fresh = path.open("rb")
                    for line in file:  # what was written between our last look and the rotation
                        yield _text(rest + line)
                        rest = b""
                    file.close()
                    file = fresh
                else:
                    time.sleep(POLL_S)
    finally:
        if file is not None:
            file.close()


def _tail(path: Path, file: BinaryIO, count: int) -> Iterator[str]:
    """The last complete lines of an open log and of the one before it; leaves `file` behind the last of them."""
    kept: deque[bytes] = deque(maxlen=count)
    before = path.with_name(f"{path.name}.1")
    if before.exists():
        with before.open("rb") as former:
            kept.extend(former)
    end = 0
    for line in file:
        if line.endswith(b"\n"):
            kept.append(line)
            end += len(line)
    file.seek(end)
    for line in kept:
        yield _text(line)


def _replaced(path: Path, file: BinaryIO) -> bool:
    """Another file has the log's name now, or it was cut short."""
    try:
        named, ours = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return False  # between two renames of a rotation
    return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or named.st_size < file.tell()


def readable(line: str) -> str:
    """One JSON line as `time LEVEL event  key=value ...`, its traceback below it; any other line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return printable(line, "")
    if not isinstance(entry, dict) or "event" not in entry:
        return printable(line, "")
    moment = str(entry.get("timestamp", ""))[:23].replace("T", " ").rstrip("Z")
    fields = [f"{key}={_value(value)}" for key, value in entry.items() if key not in _SHOWN_FIRST]
    if entry.get("run_id"):
        fields.append(f"run={entry['run_id']}")
    head = f"{moment} {str(entry.get('level', '')).upper():<8}{entry['event']}"
    lines = [printable(f"{head}  {' '.join(fields)}" if fields else head, "")]
    lines += [f"    {printable(text, '')}" for text in _traceback(entry.get("exception"))]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r'[\s"=]', value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _traceback(chain: object) -> Iterator[str]:
    """The lines of a structured traceback: where, and what."""
    for part in chain if isinstance(chain, list) else ():
        if not isinstance(part, dict):
            continue
        for frame in part.get("frames", ()):
            yield f"{frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        yield f"{part.get('exc_type')}: {part.get('exc_value')}"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")
