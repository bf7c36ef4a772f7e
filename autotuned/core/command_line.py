"""Which program a command line runs, whoever runs it for us, and what its options say. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Commands = Sequence[tuple[str, ...]]
"""Command words of a server, each as `("llama", "serve")`: the program's name, then what must follow."""

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]*|Python")
_SHELL = re.compile(r"(?:ba|da|k|z)?sh|env|node|ruby|perl")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_NO_SERVER = ("--help", "-h", "--version", "--autotune-candidate")
"""Questions, and the flag of macprovider's private candidates: also asked alone whether a binary knows it."""


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
