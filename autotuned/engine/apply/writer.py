"""The provider's configuration, written: look, back up, replace, and start over when somebody else was quicker.

At every instant, also one at which this process is killed, the file is the old one or the new one,
whole, and the backup is there before the new one. Quotes nothing of the file but our own keys.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from autotuned.core.config.diff import diff, differences, lines, reverted
from autotuned.core.config.edit import edit
from autotuned.core.config.policy import WHOLE, Bound, Terms, pins, select
from autotuned.core.config.reader import BOM, OWNED, Refused, Scalar, read
from autotuned.core.lease import Lines, Rollback
from autotuned.documents.provider import ConfigurationResult
from autotuned.engine.apply.place import Place
from autotuned.errors import ApplyRefused, UnsafePath
from autotuned.host import failpoint, operators_file
from autotuned.host.operators_file import Original
from autotuned.writers import NotOurs, Recipe

RESTARTS = 3
"""How often an edit starts over because the file has changed under it."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, or would be: `content` None means that nothing is to be done."""

    path: Path
    content: bytes | None = None
    changed: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    diff: str = ""
    backup: Path | None = None
    warnings: tuple[str, ...] = ()
    rollback: Rollback | None = None
    """How to take it back; None where nothing was written."""
    recipe: Mapping[str, Scalar] = field(default_factory=dict, compare=False)
    """The owned keys as they are in the file then; empty after a revert."""
    wanted: Recipe | None = field(default=None, compare=False)
    """What the command line of the live server has to hold, where that tells."""

    def document(self, hint: str | None, *, applied: bool) -> ConfigurationResult:
        return {
            "applied": applied,
            "changed": {key: dict(both) for key, both in self.changed.items()},
            "config_path": str(self.path),
            "backup_path": None if self.backup is None else str(self.backup),
            "restarted": False,
            "diff": self.diff,
            "recipe": dict(self.recipe) or None,
            "hint": hint,
            "warnings": list(self.warnings),
        }


Made = TypeVar("Made")


Remember = Callable[[Rollback], object]
"""Keeps the record of a change before it is made: what dies after that can still be taken back."""


def apply(
    path: Path,
    recipe: Mapping[str, Scalar],
    unix_s: int,
    *,
    dry_run: bool,
    terms: Terms = WHOLE,
    remember: Remember = lambda _: None,
) -> Written:
    """Give the owned keys of the file at `path` the values of `recipe`, as far as `terms` and the file allow.

    Raises ApplyRefused, nothing changed then.
    """

    def made(original: Original) -> Written:
        before = _text(original)
        chosen = _must(path, select(before, recipe, terms))
        after = _must(path, edit(before, chosen.wanted))
        pinned = pins(after.text, str(recipe["model"])) if "model" in after.changed else []
        warnings = (
            *chosen.remarks,
            *(
                f"{path}: {key} still names what belonged to the old model: it is not ours to change"
                for key in pinned
            ),
        )
        return Written(
            path,
            after.text.encode() if after.changed else None,
            after.changed,
            diff(before, after.text, path.name),
            warnings=warnings,
            recipe=_recipe(after.text),
        )

    return _write(path, made, unix_s, dry_run=dry_run, remember=remember)


def put(
    place: Place,
    recipe: Recipe,
    unix_s: int,
    *,
    dry_run: bool,
    remember: Remember = lambda _: None,
) -> Written:
    """Write `recipe` into a place that is not macprovider's. Raises ApplyRefused, nothing changed then."""
    path = place.path

    def made(original: Original) -> Written:
        before = _text(original)
        try:
            edited = place.edit(before, recipe)
        except NotOurs as error:
            message = f"{path}: {error}; it is left as it is"
            raise ApplyRefused(message, "unusable_file", config_path=str(path)) from None
        content = edited.text.encode() if edited.text != before else None
        return Written(path, content, edited.changed, edited.diff, warnings=edited.remarks)

    if dry_run and not path.parent.is_dir():
        return made(Original(path, path, None))
    if not dry_run and place.ours:
        with contextlib.suppress(OSError):  # told by the writing itself
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    written = _write(path, made, unix_s, dry_run=dry_run, remember=remember)
    if place.mode != operators_file.NEW_MODE and not dry_run:
        path.chmod(place.mode)
    return written


def remove(place: Place, unix_s: int) -> Written:
    """Take away a file that is ours alone, a backup of it kept. Raises ApplyRefused."""
    path = place.path
    try:
        original = operators_file.look(path)
        if original.content is None:
            return Written(path)
        backup = operators_file.back_up(original, unix_s)
        path.unlink()
    except (OSError, UnsafePath) as error:
        message = f"{path}: cannot be removed: {error}"
        raise ApplyRefused(message, "io_error", config_path=str(path)) from None
    return Written(path, b"", {place.kind: {"before": path.name, "after": None}}, backup=backup)


def put_back(
    path: Path,
    backup: Path,
    unix_s: int,
    *,
    whole: bool = True,
    remember: Remember = lambda _: None,
) -> Written:
    """Give the owned keys of the file at `path` what a backup says, or the `whole` file its content.

    Raises ApplyRefused, nothing changed then.
    """

    def made(original: Original) -> Written:
        content = operators_file.look(backup).content
        if content is None:
            message = f"{backup}: there is no such backup"
            raise ApplyRefused(message, "no_backup")
        warnings: tuple[str, ...] = ()
        if not whole and original.content is not None:
            kept = _text(original)
            text = _must(path, reverted(kept, _shown(content)), "put it back with revert --whole")
            if text.encode() != content:
                warnings = (
                    f"{path} differs from {backup.name} beyond the keys of apply, and keeps that: "
                    "revert --whole puts the whole file back",
                )
            content = text.encode()
        if content == original.content:
            return Written(path, warnings=warnings)
        before, after = _shown(original.content or b""), _shown(content)
        changed = differences(before, after)
        return Written(path, content, changed, diff(before, after, path.name), warnings=warnings)

    return _write(path, made, unix_s, remember=remember)


def _must(path: Path, found: Made | Refused, remedy: str = "") -> Made:
    """What was made. Raises ApplyRefused where it could not be."""
    if not isinstance(found, Refused):
        return found
    if isinstance(found, Bound):
        message = f"{path}: {found.reason}"
        raise ApplyRefused(message, "bound_model", config_path=str(path), keys=list(found.keys))
    message = f"{path}: {found.reason}; it is left as it is{': ' * bool(remedy)}{remedy}"
    raise ApplyRefused(message, "unusable_file", config_path=str(path))


def _write(
    path: Path,
    made: Callable[[Original], Written],
    unix_s: int,
    *,
    dry_run: bool = False,
    remember: Remember = lambda _: None,
) -> Written:
    try:
        if dry_run:
            return made(operators_file.look(path))
        with operators_file.locked(path):
            operators_file.sweep(path)
            for _ in range(1 + RESTARTS):
                original = operators_file.look(path)
                wanted = made(original)
                if wanted.content is None:
                    return wanted
                backup = operators_file.back_up(original, unix_s)
                failpoint.reach("apply.backed_up")
                before, after = _shown(original.content or b""), _shown(wanted.content)
                rollback = Rollback(
                    path=str(original.path),
                    backup=None if backup is None else str(backup),
                    sha256=hashlib.sha256(wanted.content).hexdigest(),
                    lines=lines(before, after) or _blocks(before, after),
                )
                if _replaced(original, wanted.content, rollback, remember):
                    failpoint.reach("apply.replaced")
                    return replace(wanted, backup=backup, rollback=rollback)
    except UnsafePath as error:
        raise ApplyRefused(error.message, "unusable_file", config_path=str(path)) from None
    except OSError as error:
        message = (
            f"{path}: cannot be written: {error.strerror or error}; see to its folder {path.parent}: it must exist, "
            "be writable for this user and have room"
        )
        raise ApplyRefused(message, "io_error", config_path=str(path)) from error
    message = f"{path}: somebody else keeps writing it ({1 + RESTARTS} attempts); nothing has been changed: try again"
    raise ApplyRefused(message, "changed_meanwhile", config_path=str(path))


def _blocks(before: str, after: str) -> list[Lines]:
    """The lines that an edit changed, each block with the line above it where nothing else stands there now."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    blocks = []
    for kind, i, j, k, n in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        up = 1 if k == n and k else 0
        if kind != "equal" and k - up < n:
            blocks.append(Lines(key="", new="".join(new[k - up : n]), old="".join(old[i - up : j])))
    return blocks


def _replaced(original: Original, content: bytes, rollback: Rollback, remember: Remember) -> bool:
    """Replace the file; where that comes to nothing, its backup goes too."""
    try:
        remember(rollback)
        done = operators_file.replace(original, content)
    except OSError:
        if operators_file.untouched(original):  # else the new one stands, and only its sync failed
            _drop(rollback)
        raise
    if not done:
        _drop(rollback)
    return done


def _drop(rollback: Rollback) -> None:
    if rollback["backup"] is not None:
        with contextlib.suppress(OSError):
            Path(rollback["backup"]).unlink()


def _recipe(text: str) -> dict[str, Scalar]:
    file = read(text.removeprefix(BOM))
    return {} if isinstance(file, Refused) else {key: file.shown(key) for key in OWNED}


def _shown(content: bytes) -> str:
    return content.decode(errors="replace")


def _text(original: Original) -> str:
    try:
        return (original.content or b"").decode()
    except UnicodeDecodeError:
        message = f"{original.path}: is not UTF-8 text; it is left as it is"
        raise ApplyRefused(message, "unusable_file", config_path=str(original.path)) from None
