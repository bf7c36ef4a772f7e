"""What must never be read by anybody else: known secrets, and whatever looks like one, masked in a text.

The agent masks its log and what it quotes of a candidate's output, the client what it prints and packs.
Standard library only, because the client loads it. A mask is a second line of defence: nothing is to
put a secret into a log in the first place.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from autotuned.shared.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

MASK = "[redacted]"
SHORTEST = 6
"""Shorter values are words such as `true`: to mask them would only make a log unreadable."""
LARGEST_FILE = 1024 * 1024
TAIL_BYTES = 16 * 1024
LONGEST_LINE = 300

_NAMES = r"(?:token(?!s|iz)|secret|passw|passphrase|credential|(?:api|access|private)[_-]?key)"
_SENSITIVE = re.compile(rf"{_NAMES}|(?<![a-z])auth(?![a-z]|_sock)", re.IGNORECASE)
_LOOKS_LIKE = re.compile(
    r"""\bhf_[A-Za-z0-9]{16,}                                     # Hugging Face
    | \bsk-[A-Za-z0-9_-]{16,} | \bgh[pousr]_[A-Za-z0-9]{16,}
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+     # a JSON web token
    | (?<=[Bb]earer\ )[^\s"',;]+
    | (?<=://)[^\s/:@]+:[^\s/@]+(?=@)                             # a password in an address""",
    re.VERBOSE,
)
_ASSIGNED = re.compile(
    rf"""(?P<name>[\w-]*{_NAMES}[\w-]*["']?\s*[=:]\s*["']?)(?P<value>[^\s"',;{{}}\[\]]{{{SHORTEST},}})""",
    re.IGNORECASE,
)
_YAML_LINE = re.compile(r"""^(?P<indent>[\s-]*)["']?(?P<key>[\w.-]+)["']?\s*:\s*(?P<value>.*)$""")


def masker(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that masks these values, and whatever looks like a secret, in a text."""
    known = sorted({value for value in secrets if len(value) >= SHORTEST}, key=len, reverse=True)
    exact = re.compile("|".join(map(re.escape, known))) if known else None

    def mask(text: str) -> str:
        if exact is not None:
            text = exact.sub(MASK, text)
        text = _LOOKS_LIKE.sub(MASK, text)
        return _ASSIGNED.sub(lambda found: f"{found['name']}{MASK}", text)

    return mask


def command_line(argv: Iterable[str], mask: Callable[[str], str]) -> str:
    """`argv` as one would type it, masked; also the word behind a flag with a telling name."""
    words: list[str] = []
    secret = False
    for word in argv:
        words.append(MASK if secret and not word.startswith("-") else mask(word))
        secret = word.startswith("-") and "=" not in word and is_telling(word)
    return shlex.join(words)


def is_telling(name: str) -> bool:
    """Whether this is the name of a variable, key or field that holds a secret."""
    return _SENSITIVE.search(name) is not None


def known_secrets(environ: Mapping[str, str], files: Iterable[str] = ()) -> set[str]:
    """Values of variables with a telling name, of such keys in YAML `files`, and the stored hub token.

    Files that are missing or unreadable count as empty.
    """
    found = {value for name, value in environ.items() if is_telling(name)}
    hub = environ.get("HF_HOME") or f"{environ.get('HOME', '')}/.cache/huggingface"
    token = _read(environ.get("HF_TOKEN_PATH") or f"{hub}/token").strip()
    for path in files:
        found |= set(_yaml_secrets(_read(path)))
    return {value for value in found | {token} if len(value) >= SHORTEST}


def shown(line: str) -> str:
    """A line of a foreign program, for a person: printable, bounded, secrets masked."""
    return masker(())(one_line(line))[:LONGEST_LINE]


def last_line(logs: Sequence[Path]) -> str:
    """The last line of the first of these logs that has one, and where that is."""
    for log in logs:
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
            if line := next((line for line in reversed(lines) if line.strip()), None):
                return f"{shown(line)} (its log: {log})"
    return f"it printed nothing (its log: {logs[0]})" if logs else "its job names no log"


def _yaml_secrets(text: str) -> Iterator[str]:
    """Values behind telling keys, also in a block below the key; no YAML parser is needed to be careful."""
    block: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block is not None:
            if not line.strip() or indent > block:
                yield line.strip().lstrip("- ").strip("\"'")
                continue
            block = None
        found = _YAML_LINE.match(line)
        if found is None or not is_telling(found["key"]):
            continue
        value = re.sub(r"\s+#.*$", "", found["value"]).strip()
        if value in {"", "|", ">", "|-", ">-", "|+", ">+"}:
            block = indent
        else:
            yield value.strip("\"'")


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read(LARGEST_FILE)
    return ""
