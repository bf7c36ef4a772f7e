"""The surgical way back: our keys' lines as a backup has them, every other line as the file has it now. Pure."""

from __future__ import annotations

from autotuned.core.config.reader import (
    BOM,
    BREAK,
    WRITTEN,
    ConfigFile,
    Entry,
    Refused,
    line_start,
    read,
    rest,
)

LEFT = Refused("cannot take the lines of the backup without touching others")


def reverted(now: str, backup: str) -> str | Refused:
    """`now` with the keys of WRITTEN as `backup` has them: the backup itself where nothing else differs."""
    file, old = read(now.removeprefix(BOM)), read(backup.removeprefix(BOM))
    if isinstance(file, Refused):
        return file
    if isinstance(old, Refused):
        return Refused(f"has a backup that {old.reason}")
    if _foreign(file) == _foreign(old) and now.startswith(BOM) == backup.startswith(BOM):
        return backup
    others = rest(file, WRITTEN)
    text = file.text
    for key in WRITTEN:
        current = read(text)
        if isinstance(current, Refused):
            return LEFT
        text = _with_lines_of(current, old, key)
    after = read(text)
    if others is None or isinstance(after, Refused) or rest(after, WRITTEN) != others:
        return LEFT
    if any(_said(after, key) != _said(old, key) for key in WRITTEN):
        return LEFT
    return (BOM if now.startswith(BOM) else "") + text


def _with_lines_of(file: ConfigFile, old: ConfigFile, key: str) -> str:
    """The text of `file` with one key's lines as in `old`; where it had none, at the place that `old` has them."""
    here, there = file.named(key), old.named(key)
    lines = "" if there is None else _lines(old, there)
    if here is not None:
        start, end = file.block(here)
        return file.text[:start] + lines + file.text[end:]
    if there is None:
        return file.text
    place = _place(file, old, there)
    head, tail = file.text[:place], file.text[place:]
    if head and not head.endswith(("\n", "\r")):
        found = BREAK.search(file.text)
        head += found[0] if found else "\n"
    return head + lines + tail


def _place(file: ConfigFile, old: ConfigFile, entry: Entry) -> int:
    """Before the next key that both files have, unless the line above is the same behind the one before it."""
    at = old.entries.index(entry)
    above = _line_above(old.text, line_start(old.text, entry.start))
    after = next((e for name in old.entries[at + 1 :] if (e := file.named(name.key or ""))), None)
    before = next((e for name in old.entries[:at][::-1] if (e := file.named(name.key or ""))), None)
    places = [] if after is None else [line_start(file.text, after.start)]
    if before is not None:
        places.append(file.block(before)[1])
    places.append(file.end)
    return next((p for p in places if _line_above(file.text, p) == above), places[0])


def _line_above(text: str, offset: int) -> str:
    return text[line_start(text, max(offset - 1, 0)) : offset].rstrip("\r\n")


def _lines(file: ConfigFile, entry: Entry) -> str:
    """The whole lines of an entry, with a line break at the end."""
    start, end = file.block(entry)
    lines = file.text[start:end]
    return lines if lines.endswith(("\n", "\r")) else lines + "\n"


def _foreign(file: ConfigFile) -> str:
    """The text without the lines of our keys, and without the line break at its end."""
    text = file.text
    for entry in reversed(file.entries):
        if entry.key in WRITTEN:
            start, end = file.block(entry)
            text = text[:start] + text[end:]
    return text.removesuffix("\n").removesuffix("\r")


def _said(file: ConfigFile, key: str) -> list[object]:
    """What a key says, wherever it stands."""
    entry = file.named(key)
    numbers = () if entry is None else range(entry.value, entry.last)
    names = ("tag", "value", "style", "flow_style")
    return [[getattr(file.events[n], name, None) for name in names] for n in numbers]
