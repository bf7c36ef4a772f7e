"""Property lists as launchd reads them: binary or XML in any encoding, with what a strict XML parser refuses.

Whatever a file holds, the answer is a value: its content, or why there is none. Standard library only.
"""

from __future__ import annotations

import codecs
import plistlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

LIMIT_BYTES = 1 << 20
"""No job's definition is larger; more is not read."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WITHOUT_MARK = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_ENCODING = re.compile(rb"""<\?xml[^>]*?\bencoding\s*=\s*["']([\w.-]+)""")
_MARKUP = re.compile(
    r"(?P<cdata><!\[CDATA\[.*?\]\]>)"
    r"|<!--.*?-->|<\?.*?\?>|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>"
    r"|(?P<ampersand>&(?!(?:lt|gt|amp|apos|quot|#\d+|#x[0-9A-Fa-f]+);))",
    re.DOTALL,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Unreadable(NamedTuple):
    """Why a property list cannot be read, as a clause."""

    reason: str


def read(path: Path) -> Mapping[str, Any] | Unreadable:
    """The dictionary that a file holds."""
    try:
        with path.open("rb") as file:
            return parse(file.read(LIMIT_BYTES + 1))
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror or error}")


def parse(data: bytes) -> Mapping[str, Any] | Unreadable:
    """The dictionary that the bytes of a property list hold."""
    if len(data) > LIMIT_BYTES:
        return Unreadable(f"is larger than {LIMIT_BYTES >> 20} MiB")
    try:
        if data.startswith(b"bplist"):
            content = plistlib.loads(data)
        else:
            xml = _strict(_decoded(data))
            content = plistlib.loads(xml.encode(), fmt=plistlib.FMT_XML)
    except Exception as error:  # noqa: BLE001 - its parsers raise nearly anything for odd bytes
        words = " ".join(str(error).split())[:100]
        return Unreadable(f"is no property list ({words or type(error).__name__})")
    return content if isinstance(content, dict) else Unreadable("holds no dictionary")


def strings(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of the array behind `key`; empty where it is no array."""
    found = content.get(key)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _decoded(data: bytes) -> str:
    """The text by its byte order mark, else by its own declaration, else UTF-8; odd bytes are replaced."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    for start, encoding in _WITHOUT_MARK:
        if data.lstrip(b" \t\r\n").startswith(start):
            return data.decode(encoding, "replace")
    declared = _ENCODING.search(data[:200])
    try:
        return data.decode(declared[1].decode("ascii") if declared else "utf-8", "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def _strict(text: str) -> str:
    """The same without comments, declarations and control characters, and with every ampersand escaped."""

    def replaced(found: re.Match[str]) -> str:
        return found["cdata"] or ("&amp;" if found["ampersand"] else "")

    text = _CONTROL.sub("", _MARKUP.sub(replaced, text)).strip()
    return text[: end.end()] if (end := re.search(r"</plist\s*>", text)) else text
