"""An event stream as the WHATWG standard reads it, and the error that a server puts into one.

Events, not lines: any line end, several data lines joined, comments and unknown fields passed over.
Two things go beyond the standard because servers do: the last event may lack its blank line, and a
field `error:` is an event of that name. Must not know what the events mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_LINE_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = (b"\n", b"\r")
_WORDS = ("message", "detail", "error", "description")
"""Where an error that is an object holds its sentence."""


class BrokenStream(Exception):
    """What arrived is not a whole event stream."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, empty where the stream gives none, its data, and when its last data line was whole."""

    name: str
    data: str
    stamp: int


@dataclass(slots=True)
class EventReader:
    """Cuts bytes into events. However the bytes are cut into chunks, the events are the same."""

    _waiting: bytes = b""
    """The beginning of a line whose end has not arrived."""
    _after_cr: bool = False
    _begun: bool = False
    _name: str = ""
    _data: list[bytes] = field(default_factory=list)
    _stamp: int = 0

    def feed(self, chunk: bytes, stamp: int) -> Iterator[Event]:
        """The events that this chunk completes. Raises BrokenStream for a line without end."""
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a line end that came in two chunks
            self._after_cr = False
        lines = (self._waiting + chunk).splitlines(keepends=True)
        self._after_cr = chunk.endswith(b"\r")
        self._waiting = lines.pop() if lines and not lines[-1].endswith(_LINE_ENDS) else b""
        if len(self._waiting) > MAX_LINE_BYTES:
            message = f"a line of more than {MAX_LINE_BYTES} bytes"
            raise BrokenStream(message)
        for line in lines:
            yield from self._line(line.rstrip(b"\r\n"), stamp)

    def end(self, stamp: int) -> Iterator[Event]:
        """What the end of the body completes: a last line without an end, an event without a blank line."""
        if self._waiting:
            line, self._waiting = self._waiting, b""
            yield from self._line(line, stamp)
        yield from self._line(b"", stamp)

    def _line(self, line: bytes, stamp: int) -> Iterator[Event]:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            name, data, self._name, self._data = self._name, self._data, "", []
            text = b"\n".join(data).decode("utf-8", errors="replace").strip()
            if text:
                yield Event(name, text, self._stamp)
            return
        label, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if label == b"event":
            self._name = value.decode("utf-8", errors="replace")
        elif label in (b"data", b"error"):
            self._data.append(value)
            self._stamp = stamp
            if label == b"error":
                self._name = "error"


def decoded(text: str) -> object:
    """The JSON value of `text`. Raises ValueError for any text that is none."""
    try:
        return json.loads(text)
    except RecursionError:
        message = "nested too deeply"
        raise ValueError(message) from None


def error_words(content: object) -> str | None:
    """The server's words of an error in any of the usual shapes; None where there is none.

    `{"error": ...}` with a string or an object, `{"object": "error", "message": ...}`, and an `error` of
    one of the `choices`. An error that is null or empty is none.
    """
    if not isinstance(content, dict):
        return None
    if content.get("object") == "error":
        return _sentence(content)
    choices = content.get("choices")
    for holder in (content, *(choices if isinstance(choices, list) else ())):
        error = holder.get("error") if isinstance(holder, dict) else None
        if isinstance(error, dict) and not any(error.values()):
            continue
        if error:
            return _sentence(holder if error is True else error)
    return None


def _sentence(error: object) -> str:
    while isinstance(error, dict):
        inner = next(
            (error[name] for name in _WORDS if error.get(name) not in (None, "", True)), None
        )
        if inner is None:
            break
        error = inner
    return error if isinstance(error, str) else json.dumps(error)


def refusal_words(body: bytes) -> str:
    """What a refusal says: its error in any shape, its sentence, else the text itself."""
    text = body.decode("utf-8", errors="replace")
    try:
        content = decoded(text)
    except ValueError:
        return text
    return error_words(content) or _sentence(content)
