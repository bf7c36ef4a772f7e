"""Command lines: which program one runs and what its options say, and the flags of a recipe inside somebody's.

A recipe's flags are taken out and put in, every other character as it was: on the text as it stands in a
unit file, a script or a YAML value, with quotes and backslashes as the shell and systemd have them. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Commands = Sequence[tuple[str, ...]]
"""Command words of a server, each as `("llama", "serve")`: the program's name, then what must follow."""

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]*|Python")
_SHELL = re.compile(r"(?:ba|da|k|z)?sh|env|node|ruby|perl")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_NO_SERVER = ("--help", "-h", "--version", "--autotune-candidate")
"""Questions, and the flag of macprovider's private candidates: also asked alone whether a binary knows it."""
_BLANK = re.compile(r"(?:(?:\A|(?<=\n))[ \t]*[#;][^\n]*|[ \t\r\n]|\\\r?\n)+")
"""Between two words: also lines that are comments."""
_PIECE = re.compile(r"""'[^']*'?|"(?:\\.|[^"\\])*"?|\\.|[^ \t\r\n'"\\]+|\\\Z""", re.DOTALL)
_CLOSED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^ \t\r\n'"\\]+""", re.DOTALL)


def is_server(argv: Sequence[str], commands: Commands) -> bool:
    """The program itself is one of these servers, started to serve and not to answer a question or to be measured."""
    words = program(argv)
    if not words or not set(_NO_SERVER).isdisjoint(words[1:]):
        return False
    return any(
        _is_named(words[0], command[0]) and tuple(words[1 : len(command)]) == command[1:]
        for command in commands
    )


def names_program(words: Iterable[str], names: Iterable[str]) -> bool:
    """One of `words` is a program of one of these names, by itself or with its path."""
    known = tuple(names)
    return any(_is_named(word, name) for word in words for name in known)


def program(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line from the program on; of an interpreter, from its script or module on.

    Empty where an interpreter runs neither. Who starts another program and waits for it (`uv run`,
    `caffeinate`) is not that program: it is a process of its own.
    """
    words = tuple(argv)
    while words:
        name = words[0].rpartition("/")[2]
        if _PYTHON.fullmatch(name):
            return _script(words[1:], modules=True)
        if not _SHELL.fullmatch(name):
            return words
        words = _script(words[1:], modules=False)
    return words


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`; None where it is not given."""
    for index, word in enumerate(argv):
        if word == name and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _script(words: tuple[str, ...], *, modules: bool) -> tuple[str, ...]:
    """What follows an interpreter's own options."""
    index = 0
    while index < len(words) and words[index].startswith("-"):
        word = words[index]
        short = re.fullmatch(r"-[A-Za-z]*?([cm])(.*)", word)
        if short is not None and (modules or short[1] == "c"):
            if short[1] == "c":
                return ()
            rest = words[index + 1 :]
            return (short[2], *rest) if short[2] else rest
        index += 2 if word in _WITH_VALUE else 1
    return words[index:]


def _is_named(word: str, name: str) -> bool:
    return word == name or word.endswith(f"/{name}")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command line: its text is `[start:end]`, `value` what the program is given."""

    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One knob on a command line: every flag that writes it with the number of its values, and its new words.

    No `words`: the knob is left at the server's default, so its flags go.
    """

    flags: Mapping[str, int]
    words: tuple[str, ...]


def words(text: str) -> list[Word]:
    listed: list[Word] = []
    at = 0
    while True:
        blank = _BLANK.match(text, at)
        at = blank.end() if blank else at
        if at >= len(text):
            return listed
        start, value = at, ""
        while at < len(text) and not _BLANK.match(text, at):
            piece = _PIECE.match(text, at)
            assert piece is not None  # noqa: S101 - every character that is not blank begins a piece
            value += _meaning(piece[0])
            at = piece.end()
        listed.append(Word(start, at, value))


def is_whole(text: str) -> bool:
    """Whether every quote is closed: what is put behind an open one would be part of its word."""
    return all(
        _CLOSED.fullmatch(piece[0])
        for word in words(text)[-1:]
        for piece in _PIECE.finditer(text[word.start : word.end])
    )


def _meaning(piece: str) -> str:
    if piece.startswith("'"):
        return piece[1:].removesuffix("'") if len(piece) > 1 else ""
    if piece.startswith('"'):
        inner = piece[1:-1] if len(piece) > 1 and piece.endswith('"') else piece[1:]
        return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)
    return piece[1:] if piece.startswith("\\") and len(piece) > 1 else piece


def put(text: str, settings: Sequence[Setting]) -> str:
    """`text` with each knob as its setting has it: in the place where it stood, else behind the last word."""
    for setting in settings:
        text = _put(text, setting)
    return text


def current(text: str, setting: Setting) -> tuple[str, ...]:
    """The words by which this knob is set in `text`; empty where it is not."""
    listed = words(text)
    return tuple(word.value for span in _spans(listed, setting) for word in listed[slice(*span)])


def _spans(listed: Sequence[Word], setting: Setting) -> list[tuple[int, int]]:
    """Where the knob's flags stand with their values, as places among the words."""
    spans, place = [], 0
    while place < len(listed):
        value = listed[place].value
        name, joined, _ = value.partition("=")
        count = setting.flags.get(value)
        if count is None and joined and name in setting.flags:
            count = setting.flags[name] - 1
        if count is None:
            place += 1
            continue
        after = min(len(listed), place + 1 + count)
        spans.append((place, after))
        place = after
    return spans


def _put(text: str, setting: Setting) -> str:
    listed = words(text)
    spans = _spans(listed, setting)
    standing = tuple(word.value for span in spans for word in listed[slice(*span)])
    if standing == setting.words:
        return text
    fresh = " ".join(shlex.quote(word) for word in setting.words)
    if not spans:
        end = listed[-1].end if listed else len(text)
        return f"{text[:end]} {fresh}{text[end:]}"
    for number, (first, after) in reversed(list(enumerate(spans))):
        start, end = listed[first].start, listed[after - 1].end
        put_here = fresh if number == 0 else ""
        if not put_here and first > 0:
            start = listed[first - 1].end
        text = text[:start] + put_here + text[end:]
    return text
