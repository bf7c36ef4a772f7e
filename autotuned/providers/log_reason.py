"""Finds the line of a server's log that says best why it failed.

Servers echo their configuration after a fatal error and print access lines after a traceback, so the
last line rarely is the one. Pure; knows no server by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

LINE_LIMIT = 400
"""Characters kept of a telling line; a trial's notes hold it beside an exit code."""

_PART = 512 * 1024
"""Of a longer log the first and the last so many characters are searched."""

# Colours and titles, then whatever else a terminal would act upon instead of showing it.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_LINE_ENDS = re.compile(r"\r\n|\n|\r")

_HARMLESS = re.compile(
    r"""log[\s_-]?level\W{1,4}\w+                         # log_level: error
    | (?:error|errors|fatal|failed|failures?)["']?\s*[:=]\s*(?:0|nil|null|none|false|""|'')\b
    | \b(?:no|0|zero|without|ignore[sd]?)\s+(?:error|failure)s?\b
    | \berrors?["']?\s*[:=]\s*["']?ignore\b""",
    re.IGNORECASE | re.VERBOSE,
)
_MEMORY = re.compile(
    r"""out[\s-]of[\s-]memory|outofmemory|insufficient\ memory|cannot\ allocate\ memory
    | \bOOM\b|bad_alloc|metal::malloc|attempting\ to\ allocate|failed\ to\ allocate
    | unable\ to\ allocate|allocation\ failed|not\ enough\ memory|maximum\ allowed\ buffer\ size""",
    re.IGNORECASE | re.VERBOSE,
)
_ERROR = re.compile(
    r"\b(?:errors?|fatal|panic(?:ked)?|exception|abort(?:ed|ing)|segmentation fault|assertion)\b",
    re.IGNORECASE,
)
_ERROR_CLASS = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b")
_COMPLAINT = re.compile(
    r"""\b(?:failed|failure|can(?:not|\ not|'t)|could(?:\ not|n't)|unable\ to|not\ found
    | no\ such|denied|refused|invalid|unsupported|not\ supported|unknown\ option|in\ use|killed)\b""",
    re.IGNORECASE | re.VERBOSE,
)
FATAL = re.compile(
    r"""^\W*fatal(?:\ error)?\s*:\s*[^\W\d]
    | \b(?:unknown|unsupported|unrecogni[sz]ed)\ (?:model[\ _-])?architecture\b
    | \b(?:unknown|unsupported|unrecogni[sz]ed)\ model[\ _-]?type\b
    | \bunsupportedModelType\b | does\ not\ recognize\ this\ architecture
    | \b(?:model[\ _-]?type|architecture)\W+\S+\ (?:is\ )?(?:not\ supported|unsupported|unknown)\b
    | \berror\ loading\ model\b | \bmodel\ loading\ error\b
    | \b(?:failed|unable)\ to\ load\ (?:the\ )?model(?=$|[:.,!]|\ (?:from|at|file|weights|['"/]))
    | \bRepository\ not\ available\ locally\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""What no server says of a load that may still succeed; an adapter may know more."""
_WARNING = re.compile(r"\bwarn(?:ing)?\b|^\S*\ ?W\ ", re.IGNORECASE)
_THREAD_DIED = "Exception in thread"

_TRACEBACK = "Traceback (most recent call last)"
_INDENTS = " \t|+"
"""How a frame's line begins, an exception group's too."""
_CHAINED = ("During handling of the above", "The above exception was")


def telling_line(log: str) -> str | None:
    """The first line that speaks of an error, of lacking memory, or that ends a traceback.

    Where none does: the first complaint of another kind, else the last line. None for an empty log.
    The answer is printable, on one line and at most `LINE_LIMIT` characters.
    """
    if len(log) > 2 * _PART:
        log = log[:_PART] + "\n" + log[-_PART:]
    lines = [line for line in map(_clean, _LINE_ENDS.split(log)) if line.strip()]
    if not lines:
        return None
    found = next(_errors(lines), None)
    if found is None:
        found = next((line for line in lines if _COMPLAINT.search(_meant(line))), lines[-1])
    return _bounded(found)


def fatal_line(log: str, fatal: re.Pattern[str]) -> str | None:
    """The first line that says that the load has failed for good; None where no line does.

    Of a thread that died it is the exception; warnings are none.
    """
    lines = [line for line in map(_clean, _LINE_ENDS.split(log)) if line.strip()]
    for index, line in enumerate(lines):
        if fatal.search(line) and not _WARNING.search(line):
            return (
                telling_line("\n".join(lines[index:])) if _THREAD_DIED in line else _bounded(line)
            )
    return None


def _errors(lines: Sequence[str]) -> Iterator[str]:
    index = 0
    while index < len(lines):
        if _TRACEBACK in lines[index]:
            index, end = _traceback_end(lines, index)
            if end is not None:
                yield end
            continue
        # "Exception in thread ..." and the like only announce the traceback that follows.
        announces = any(_TRACEBACK in line for line in lines[index + 1 : index + 3])
        if not announces and _speaks_of_an_error(lines[index]):
            yield lines[index]
        index += 1


def _traceback_end(lines: Sequence[str], start: int) -> tuple[int, str | None]:
    """Where the traceback (and those chained to it) is over, and the line that names the exception.

    Frames are indented, the exception is not; a chain's last exception is the one that ended it.
    """
    end: str | None = None
    index = start + 1
    while index < len(lines):
        line = lines[index]
        if line.startswith(_CHAINED) or _TRACEBACK in line:
            end = None
        elif line[0] not in _INDENTS:
            if end is None:
                end = line
            elif not any(later.startswith(_CHAINED) for later in lines[index : index + 3]):
                break
        index += 1
    return index, end


def _speaks_of_an_error(line: str) -> bool:
    meant = _meant(line)
    return any(pattern.search(meant) for pattern in (_MEMORY, _ERROR, _ERROR_CLASS))


def _meant(line: str) -> str:
    """`line` without the words that only look like a failure."""
    return _HARMLESS.sub(" ", line)


def _clean(line: str) -> str:
    return _UNPRINTABLE.sub("", _ESCAPES.sub("", line)).rstrip()


def _bounded(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= LINE_LIMIT else line[: LINE_LIMIT - 1] + "…"
