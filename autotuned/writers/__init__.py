"""Where a recipe goes beside macprovider's own configuration: into what the live server reads.

Each writer edits one text, in which only the flags of the recipe are ours: every other byte stays. A
text that it does not understand is refused. Must not know files, runs or how a server is restarted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autotuned.core.command_line import Setting, current, is_whole, put
from autotuned.core.config.policy import Terms
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import TABLE, Knobs

MODEL = "model"
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "-m": ("--model", "-hf", "--hf-repo", "-hfr", "-hff", "--hf-file", "-mu", "--model-url")
}
"""How else a model is named on the command line of a server that knows this flag."""


class NotOurs(Exception):
    """A text that is not ours to edit; the message says why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be written: a setting for each knob and for the model, by name, and the line that serves it."""

    model: str
    settings: Mapping[str, Setting]
    serve: tuple[str, ...]
    decided: frozenset[str]
    slots: int | None = None
    all_knobs: bool = False


@dataclass(frozen=True, slots=True)
class Edited:
    """The text as it is to be, what changes by name, and what a person should know."""

    text: str
    changed: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """The flags that go and come, and nothing else: the text may hold secrets."""
        lines = [
            f"{sign}{both[when]}"
            for both in self.changed.values()
            for sign, when in (("-", "before"), ("+", "after"))
            if both[when] is not None
        ]
        return "".join(f"{line}\n" for line in lines)


def recipe(
    spec: ServerSpec,
    model: str,
    knobs: Knobs,
    serve: str,
    terms: Terms,
    argv: tuple[str, ...] | None = None,
) -> Recipe:
    """The recipe in the words of the server that it was measured with; `serve` is the line that serves it.

    `argv`: what that line comes to, where it is a command of ours.
    """
    chosen, line = knobs.chosen(), tuple(shlex.split(serve))
    settings = {
        name: Setting(knob.flags, tuple(knob.words(chosen[name], chosen)) if name in chosen else ())
        for name, knob in spec.knobs.items()
    }
    named = None if terms.knobs_only else _model(spec, argv or line)
    if named is not None:
        settings = {MODEL: named, **settings}
    decided = {knob.name for knob in TABLE if knob.published in terms.decided}
    decided |= {MODEL, *(name for name, _ in knobs.extra)}
    return Recipe(model, settings, line, frozenset(decided), knobs.max_batch, terms.all_knobs)


def _model(spec: ServerSpec, line: tuple[str, ...]) -> Setting | None:
    """The flag that names the weights, with its value on the line that serves; None where that has no flag."""
    for flag, template in zip(spec.command, spec.command[1:], strict=False):
        if flag.startswith("-") and template in ("{weights}", "{source}") and flag in line[:-1]:
            words = (flag, line[line.index(flag) + 1])
            return Setting(dict.fromkeys((flag, *SPELLINGS.get(flag, ())), 1), words)
    return None


def fitted(line: str, wanted: Recipe, spell: Callable[[str], str] = str) -> Edited:
    """A command line with the flags of the recipe in it, flag by flag; `spell` writes a value for its place.

    A knob that the run did not decide keeps the value that stands there. Raises NotOurs for a line with an open quote.
    """
    if not is_whole(line):
        message = "its command line has a quote that is not closed"
        raise NotOurs(message)
    changed: dict[str, Mapping[str, str | None]] = {}
    remarks: list[str] = []
    for name, plain in wanted.settings.items():
        setting = replace(plain, words=tuple(map(spell, plain.words)))
        before = current(line, setting)
        if _means(before) == _means(setting.words):
            continue
        words, now = shlex.join(before) or None, shlex.join(setting.words) or None
        if before and name not in wanted.decided and not wanted.all_knobs:
            remarks.append(
                f"kept: {words} (this run measured at {now or 'unset'} and did not search it); "
                "--all-knobs writes it"
            )
            continue
        line = put(line, [setting])
        changed[name] = {"before": words, "after": now}
    return Edited(line, changed, tuple(remarks))


def not_in_effect(argv: Sequence[str], wanted: Recipe) -> tuple[str, ...]:
    """The settings of a recipe that a command line does not have; of those that were kept, none."""
    edited = fitted(shlex.join(argv), wanted)
    changes = edited.changed.values()
    return tuple(
        f"{both['after'] or 'unset'} (it runs with {both['before'] or 'none'})" for both in changes
    )


def _means(words: tuple[str, ...]) -> list[str]:
    """The words of a setting, `--flag=value` parted."""
    return [
        part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])
    ]
