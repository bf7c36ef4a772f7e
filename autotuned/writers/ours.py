"""Files of ours: a drop-in for somebody's unit, its own command with the flags of the recipe put in; and a script
that serves the recipe, for whoever calls it from a plist, a unit or a terminal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from autotuned.core.command_line import Commands, is_server, words
from autotuned.writers import Edited, NotOurs, Recipe, fitted

DROP_IN = "50-autotuned.conf"
SCRIPT = "serve-recipe.sh"
_WRITTEN = "# Written by autotunectl apply; autotunectl revert removes it.\n"
_UNIT = f"{_WRITTEN}[Service]\nExecStart=\n"
_SHELL = f"#!/bin/sh\n{_WRITTEN}"
PREFIXES = "@-:+!|"
"""What may stand before the program of an ExecStart."""


def drop_in(files: Iterable[str], text: str, recipe: Recipe, commands: Commands) -> Edited:
    """The drop-in for a unit of these `files`, in the order in which systemd reads them, ours left out.

    `text` is our drop-in as it is now, empty for none.
    """
    own = command(files)
    parts = [word.value for word in words(own)]
    if not parts or not is_server([parts[0].lstrip(PREFIXES), *parts[1:]], commands):
        program = parts[0] if parts else "nothing"
        message = (
            f"its ExecStart runs {program} and not the server that was measured, so its flags cannot "
            'be found there: have a script written instead, with [apply] kind = "script"'
        )
        raise NotOurs(message)
    edited = fitted(own, recipe, _spelled)
    after = f"{_UNIT}ExecStart={edited.text.rstrip()}\n" if edited.changed else ""
    if after == text:
        return Edited(text, {}, edited.remarks)
    if text and not edited.changed:
        gone = {"drop-in": {"before": DROP_IN, "after": None}}
        return replace(edited, text="", changed=gone)
    before = fitted(command([*files, text]), recipe, _spelled) if text else edited
    return replace(edited, text=after, changed=before.changed or edited.changed)


def command(files: Iterable[str]) -> str:
    """The ExecStart of these files as it is written, continued lines and all. Raises NotOurs."""
    found: list[str] = []
    for key, value in (pair for text in files for pair in _settings(text)):
        if key == "ExecStart":
            found = [*found, value] if value.strip() else []
    if len(found) != 1:
        message = f"it has {len(found)} commands (ExecStart), and not one"
        raise NotOurs(message)
    return found[0]


def drop_in_path(unit: str, scope: str, config_home: Path) -> Path:
    """Where the drop-in of a unit is; `config_home` is the user's `~/.config`."""
    root = config_home / "systemd" / "user" if scope == "user" else Path("/etc/systemd/system")
    return root / f"{unit}.d" / DROP_IN


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """The settings of `[Service]`, a continued one with its lines as they are."""
    section, lines = "", iter(text.splitlines())
    for line in lines:
        if header := re.fullmatch(r"\s*\[(.*)\]\s*", line):
            section = header[1]
            continue
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        whole = [line]
        while whole[-1].endswith("\\") or (len(whole) > 1 and _is_comment(whole[-1])):
            following = next(lines, None)
            if following is None:
                break
            whole.append(following)
        key, equals, value = "\n".join(whole).partition("=")
        if section == "Service" and equals:
            yield key.strip(), value.lstrip(" \t")


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", ";"))


def _spelled(word: str) -> str:
    """A value as a unit takes it: neither specifier nor variable."""
    return word.replace("%", "%%").replace("$", "$$")


def script(text: str, recipe: Recipe) -> Edited:
    """The script for `recipe`. Raises NotOurs for one that somebody else has written."""
    if text and not text.startswith(_SHELL):
        message = "it was not written by autotunectl apply: move it aside"
        raise NotOurs(message)
    after = f'{_SHELL}exec {shlex.join(recipe.serve)} "$@"\n'
    before = text.removeprefix(_SHELL).strip() or None
    if after == text:
        return Edited(text)
    return Edited(after, {"serve": {"before": before, "after": after.removeprefix(_SHELL).strip()}})
