"""A serving program as data: what a description may say, and the command lines that follow from it.

Shipped descriptions are the TOML files in `providers/`, the operator's own are `[servers.NAME]` in the
settings, with the same keys. Knows no server by name and starts nothing.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from autotuned.errors import INCONSISTENT, REQUIRED, nearest

Value = int | float | bool | str
Names = Mapping[str, Value]

PLACES: Names = {"weights": "", "model": "", "source": "", "folder": "", "port": 1, "context": 1}
"""What any template may name, with a value of its type: the weights' path, the model's id, the one of
the two by which the model was asked for, a private folder, the port, the target context."""
ALWAYS: Names = {"max_batch": 1, "max_context": 1}
"""What a knob's template may name besides: the knobs that every cell sets."""
NOT_SERVED = frozenset({"port", "folder"})
"""What stands on a candidate's command line, and is the operator's own choice on a served one."""

_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
"""A name or sum to fill in, or a brace that is meant, written twice."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
UNPAIRED = (
    "has a brace without its other half (write {{ and }} where braces are meant), or a character 0"
)


def names_of(template: str) -> set[str]:
    """The names in a template. Raises ValueError for anything but sums and products of names and numbers."""
    return {
        node.id
        for hole in _HOLE.finditer(template)
        if hole[1] is not None
        for node in ast.walk(_parsed(hole[1]))
        if isinstance(node, ast.Name)
    }


def fill(template: str, names: Names) -> str:
    """The template with each `{...}` replaced by its value. Raises KeyError for a name that has none."""

    def filled(hole: re.Match[str]) -> str:
        return hole[0][0] if hole[1] is None else spelled(_worth(_parsed(hole[1]), names))

    return _HOLE.sub(filled, template)


def spelled(value: Value) -> str:
    """A value as a command line has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.cache
def _parsed(hole: str) -> ast.expr:
    try:
        node = ast.parse(hole.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if node is None or not _plain(node):
        message = f"{{{hole}}} is no name, sum or product of names and whole numbers"
        raise ValueError(message)
    return node


def _plain(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add | ast.Mult) and _plain(node.left) and _plain(node.right)
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    return isinstance(node, ast.Name)


def _worth(node: ast.expr, names: Names) -> Value:
    if isinstance(node, ast.BinOp):
        left, right = _worth(node.left, names), _worth(node.right, names)
        if isinstance(left, str | bool) or isinstance(right, str | bool):
            message = f"{ast.unparse(node)}: only numbers can be added or multiplied"
            raise ValueError(message)
        return left + right if isinstance(node.op, ast.Add) else left * right
    if isinstance(node, ast.Constant):
        return int(str(node.value))
    assert isinstance(node, ast.Name)  # noqa: S101 - `_plain` lets nothing else through
    return names[node.id]


def _broken(key: str, value: object, rule: str) -> PydanticCustomError:
    return PydanticCustomError(INCONSISTENT, "{rule}", {"key": key, "value": value, "rule": rule})


def _check(key: str, words: Iterable[str], names: Names) -> None:
    """Raise for a word that could not be filled in at a start."""
    for word in words:
        if "\0" in word or set("{}") & set(_HOLE.sub("", word)):
            raise _broken(key, word, UNPAIRED)
        try:
            fill(word, names)
        except KeyError as error:
            name, known = error.args[0], ", ".join(sorted(names))
            rule = f"names {name}, which is none of {known}{nearest(name, names)}"
            raise _broken(key, word, rule) from None
        except ValueError as error:
            raise _broken(key, word, f"cannot be used: {error}") from None


def _scalar(value: object) -> Value:
    endless = isinstance(value, float) and not math.isfinite(value)
    if endless or not isinstance(value, str | int | float):
        message = "should be a number, text, true or false"
        raise ValueError(message)
    return value


def _not_empty(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words or not words[0]:
        message = "should not be empty"
        raise ValueError(message)
    return words


Words = tuple[str, ...]
SomeWords = Annotated[Words, AfterValidator(_not_empty)]
Some = tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...]
Scalar = Annotated[Value, PlainValidator(_scalar)]
Truth = Annotated[bool, Strict()]
Bound = Annotated[float, Strict()]
SAMPLES: Mapping[str, Value] = {"int": 1, "float": 1.5, "bool": True, "text": ""}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KnobSpec(Part):
    """One setting of a server: how it is written on the command line, and which values it takes.

    `flag` is a template in which `{value}` is the knob's value; `values` gives the words of each value
    instead, and then no other can be asked for. A knob that is left at the server's default adds nothing.
    """

    flag: Words | None = None
    values: dict[str, Words] | None = None
    type: Literal["int", "float", "bool", "text"] = "int"
    min: Bound | None = None
    max: Bound | None = None
    default_axis: tuple[Scalar, ...] = ()
    lossy: Truth = False
    """The answers may differ from those without it."""
    needs: dict[str, Scalar] = Field(default_factory=dict)
    """Values of other knobs without which this one does nothing."""
    aliases: dict[str, Words] = Field(default_factory=dict)
    """Other spellings of each flag; a plain list are those of the only one."""
    help: str = ""

    @field_validator("aliases", mode="before")
    @classmethod
    def _of_the_flag(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            return value
        flags = list(_flags(info.data.get("flag"), info.data.get("values")))
        if len(flags) != 1:
            message = f"should be a table of flags and their spellings, for {', '.join(flags)}"
            raise ValueError(message)
        return {flags[0]: value}

    @model_validator(mode="after")
    def _consistent(self) -> KnobSpec:
        if (self.flag is None) == (self.values is None):
            rule = (
                f"{REQUIRED}, or values" if self.flag is None else "cannot be given beside values"
            )
            raise _broken("flag", self.flag, rule)
        if self.min is not None and self.max is not None and self.min > self.max:
            raise _broken("min", self.min, f"is above max, {self.max:g}")
        names = {**PLACES, **ALWAYS}
        _check("flag", self.flag or (), {**names, "value": SAMPLES[self.type]})
        for value, words in (self.values or {}).items():
            _check(f"values.{value}", words, names)
        if strange := set(self.aliases) - set(_flags(self.flag, self.values)):
            raise _broken("aliases", min(strange), "is no flag of this knob")
        for choice in self.default_axis:
            twice = "is given twice" if self.default_axis.count(choice) > 1 else None
            if broken := self.rule(choice) or twice:
                raise _broken("default_axis", choice, broken)
        return self

    def words(self, value: Value, names: Names) -> list[str]:
        """What stands on the command line for `value`. Raises KeyError for one that is not declared."""
        flag = self.flag or ()
        off = value is False and "value" not in names_of("".join(flag))  # a switch
        templates = (() if off else flag) if self.values is None else self.values[spelled(value)]
        return [fill(word, {**names, "value": value}) for word in templates]

    def rule(self, value: Value) -> str | None:
        """Why `value` cannot be asked for; None where it can."""
        if self.values is not None:
            known = ", ".join(self.values)
            return None if spelled(value) in self.values else f"is none of {known}"
        wanted = {"int": (int,), "float": (int, float), "bool": (bool,), "text": (str,)}[self.type]
        if type(value) not in wanted:
            return f"is no {self.type}"
        if isinstance(value, int | float) and self.min is not None and value < self.min:
            return f"is below {self.min:g}"
        if isinstance(value, int | float) and self.max is not None and value > self.max:
            return f"is above {self.max:g}"
        return None

    @property
    def flags(self) -> dict[str, int]:
        """Every spelling of each flag that this knob writes, with the number of values behind it."""
        counts = _flags(self.flag, self.values)
        others = {
            other: counts[flag] for flag, spellings in self.aliases.items() for other in spellings
        }
        return counts | others


def _flags(flag: Words | None, values: Mapping[str, Words] | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for words in (flag or (), *(values or {}).values()):
        for index, word in enumerate(words):
            if word.startswith("-"):
                ends = (i for i in range(index + 1, len(words)) if words[i].startswith("-"))
                name, joined, _ = word.partition("=")
                counts[name] = 1 if joined else next(ends, len(words)) - index - 1
    return counts


class ServerSpec(Part):
    """One serving program.

    `command` serves a model; `candidate` is added only while measuring, `defaults` where no knob is set.
    """

    command: SomeWords
    version: SomeWords | None = None
    """Its last line is the version; without it the program's hash stands for it."""
    packages: Words = ()
    """Instead of it, for a Python program: the packages whose versions are asked of its interpreter."""
    process: Some = ()
    """How a running one is recognised: the basename of its program, then the next words."""
    weights: Literal["safetensors", "gguf"] = "safetensors"
    ready: SomeWords = ("/v1/models",)
    candidate: Words = ()
    defaults: Words = ()
    env: dict[str, str] = Field(default_factory=dict)
    scrub: Some = ()
    """Prefixes of the variables that would configure a candidate."""
    request_model: str = "{model}"
    places: Words = ()
    """Folders in which the program is looked for after the PATH."""
    install: str = ""
    """How to get it."""
    candidates: str | None = None
    """The name of its default list of models."""
    log_prefix: str | None = None
    """What stands before the words of each line of its log, as a regular expression."""
    tried: str = ""
    """Run here with its version and date, or written from its manual."""
    single_stream: Truth = False
    """It answers one request at a time, whatever it is asked."""
    slots_at_once: Truth = False
    """A slot takes memory only while a request is in it: started for many, it serves few just the same."""
    quirks: Words = ()
    """What is odd about it, a sentence each."""
    knobs: dict[str, KnobSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> ServerSpec:
        for key in ("command", "candidate", "defaults"):
            _check(key, getattr(self, key), PLACES)
        _check("request_model", (self.request_model,), PLACES)
        for path in self.ready:
            if not path.startswith("/"):
                raise _broken("ready", path, "is no path such as /v1/models")
        try:
            re.compile(self.log_prefix or "")
        except re.error as error:
            rule = f"is no regular expression: {error}"
            raise _broken("log_prefix", self.log_prefix, rule) from None
        for name, knob in self.knobs.items():
            if not _NAME.fullmatch(name):
                raise _broken("knobs", name, "is no name of small letters, digits and _")
            for other, value in knob.needs.items():
                if other not in self.knobs:
                    raise _broken(f"knobs.{name}.needs", other, "is no knob of this server")
                if broken := self.knobs[other].rule(value):
                    raise _broken(f"knobs.{name}.needs.{other}", value, broken)
        return self

    def rule(self, knob: str, value: Value | None) -> str | None:
        """Why `value` cannot be asked of this server; None where it can. None is the server's default."""
        if value is None:
            return None
        if knob in self.knobs:
            return self.knobs[knob].rule(value)
        # The batch of one is what a server without such a knob has.
        return None if (knob, value) == ("max_batch", 1) else "cannot be set on this server"

    def argv(
        self,
        program: Sequence[str],
        names: Names,
        knobs: Names | None,
        *,
        extra: Sequence[str] = (),
        hook: Sequence[str] = (),
        serving: bool = False,
    ) -> tuple[str, ...]:
        """The command line of a start. `knobs` None: the server's defaults; one that is absent is unset.

        `program` replaces the first word. `extra` are the operator's arguments: they come before the first
        flag, so that a knob under test wins over one given there. `hook`: words that data cannot say.
        `serving`: what a person would type, without what only a candidate needs.
        """
        template = _served(self.command) if serving else self.command
        flags = _first_flag(template)
        argv = [*program, *(fill(word, names) for word in template[1:flags]), *extra]
        argv += [*(fill(word, names) for word in template[flags:]), *hook]
        if knobs is None:
            argv += [fill(word, names) for word in self.defaults]
        else:
            known = {**names, **knobs}
            argv += [
                word
                for name, knob in self.knobs.items()
                if name in knobs
                for word in knob.words(knobs[name], known)
            ]
        if not serving:
            argv += [fill(word, names) for word in self.candidate]
        return tuple(argv)


def as_toml(name: str, spec: ServerSpec) -> str:
    """A description as `autotuned.toml` would have it: only what differs from the defaults."""
    fields = spec.model_dump(exclude_defaults=True)
    knobs = fields.pop("knobs", {})
    parts = {f"servers.{_key(name)}": fields}
    parts |= {f"servers.{_key(name)}.knobs.{knob}": values for knob, values in knobs.items()}
    return "\n".join(
        "".join([f"[{title}]\n", *(f"{key} = {_toml(value)}\n" for key, value in part.items())])
        for title, part in parts.items()
    )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _first_flag(command: Sequence[str]) -> int:
    """Where the server's own flags begin; `-m` of an interpreter names the server."""
    module = len(command) > 2 and command[1] == "-m" and not _HOLE.search(command[2])
    start = 3 if module else 1
    ends = (i for i in range(start, len(command)) if command[i].startswith("-"))
    return next(ends, len(command))


def _served(command: Sequence[str]) -> Sequence[str]:
    """`command` without the words that only a candidate needs, and the flags before them."""
    words: list[str] = []
    for word in command:
        if names_of(word) & NOT_SERVED:
            if words and words[-1].startswith("-") and not word.startswith("-"):
                words.pop()
        else:
            words.append(word)
    return words
