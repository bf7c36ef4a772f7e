"""Every way in which the agent can refuse or fail, each with a stable `kind`.

A message is one sentence for a person and names the thing, the value and the rule; `data` is for
programs. Expected outcomes of a tune (a candidate that does not fit, a gate that is missed) are
values in the history, never one of these. Knows nothing of sockets, SQL or processes.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError


class AutotunedError(Exception):
    """The base of all errors that a caller may be told about."""

    kind = "internal_error"

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: Mapping[str, Any] = data


class ConfigError(AutotunedError):
    """A request that cannot be run: `field` has `value`, which breaks `rule`."""

    kind = "config_error"

    def __init__(self, field: str, value: Any, rule: str) -> None:
        given = "" if value is None and rule.startswith(REQUIRED) else f"{shown(value)} "
        super().__init__(f"{field}: {given}{rule}", field=field, value=value, rule=rule)
        self.field, self.value, self.rule = field, value, rule


@contextlib.contextmanager
def called(field: str, name: str) -> Iterator[None]:
    """Tell of what is wrong with `field` under the `name` that whoever asks has for it."""
    try:
        yield
    except ConfigError as error:
        if error.field != field:
            raise
        raise ConfigError(name, error.value, error.rule) from None


REQUIRED: Final = "must be given"
ROOM: Final = 60
"""So many characters of a table are repeated in a message; more would hide the rule behind it."""
RULES: Final[Mapping[str, str]] = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "dict_type": "should be a table of names and values",
    "extra_forbidden": "is not known",
    "finite_number": "should be a finite number",
    "float_parsing": "should be a valid number",
    "float_type": "should be a valid number",
    "greater_than": "should be greater than {gt:g}",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "inconsistent": "{rule}",
    "int_from_float": "should be a valid integer",
    "int_parsing": "should be a valid integer",
    "int_parsing_size": "should be a valid integer",
    "int_type": "should be a valid integer",
    "less_than": "should be less than {lt:g}",
    "less_than_equal": "should be less than or equal to {le}",
    "literal_error": "should be {expected}",
    "missing": REQUIRED,
    "model_type": "should be a table of names and values",
    "path_type": "should be a path",
    "string_too_short": "should not be empty",
    "string_type": "should be text",
    "tuple_type": "should be a list",
    "value_error": "{error}",
}
"""What a value has to be, by the type of error that pydantic finds: all that a model here produces."""
INCONSISTENT: Final = "inconsistent"
"""The type of an error whose context says key, value and rule: for tables whose keys do not fit together."""
SIZE: Final = "should be a size such as 16B, or a number"
TYPES: Final = {"str": SIZE, "float": SIZE, "int": "should be a number, text, true or false"}
"""What pydantic adds to the place of a value that may be of several types, a size or one of a knob; and its rule."""


def invalid(error: ValidationError, known: Iterable[str] = ()) -> ConfigError:
    """The first problem that pydantic has found, in the user's words. `known`: the names that there are."""
    problems = error.errors(include_url=False)
    strange = (each for each in problems if each["type"] == "extra_forbidden")
    first = next(strange, problems[0])  # a name with a slip is also why the right one is missing
    kind, found, context = first["type"], first["input"], first.get("ctx", {})
    names = [part for part in first["loc"] if isinstance(part, str) and part not in TYPES]
    if kind == INCONSISTENT:
        return ConfigError(".".join([*names, context["key"]]), context["value"], context["rule"])
    if kind == "extra_forbidden":
        return unknown(".".join(names), found, RULES[kind], known)
    last = str(first["loc"][-1]) if first["loc"] else ""
    rule = TYPES.get(last, RULES[kind].format_map(context))
    if kind == "literal_error" and isinstance(found, str):
        rule += nearest(found, context["expected"].replace(" or ", ", ").split(", "))
    return ConfigError(".".join(names) or "params", None if kind == "missing" else found, rule)


def unknown(name: str, value: Any, rule: str, known: Iterable[str]) -> ConfigError:
    """A name that does not exist, with the nearest one that does."""
    return ConfigError(name, value, rule + nearest(name, known))


LONG = 3
"""So many letters of a name are enough to mean it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to a rule for a name that is nearly one of those there are."""
    names = [each.strip("'") for each in known]
    near = [each for each in names if len(name) >= LONG and name.lower() in each.lower()]
    near = near or difflib.get_close_matches(name[:80], names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
    """A value as JSON and TOML spell it, a text in single quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping) and len(repr(value)) > ROOM:
        return "{...}"
    return repr(value)


class SettingsError(AutotunedError):
    """The settings file cannot be used: names the file, the key and the rule."""

    kind = "settings_error"


class ProviderMissing(AutotunedError):
    """No serving program is installed, or the one found is too old; the message says how to get one."""

    kind = "config_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, field="provider", value=None, rule=message)


class ProviderConflict(AutotunedError):
    """A live provider or a stranger is in the way, and nobody asked for a drain."""

    kind = "provider_conflict"

    def __init__(self, message: str, conflicts: Sequence[str], **data: str) -> None:
        super().__init__(message, conflicts=list(conflicts), **data)
        self.conflicts = tuple(conflicts)


class Busy(AutotunedError):
    """Another run is active."""

    kind = "busy"


class NotFound(AutotunedError):
    """No such run, subscription, pull or entry."""

    kind = "not_found"


class ApplyRefused(AutotunedError):
    """A configuration that is not written; `reason` is a stable word, the message says the rest."""

    kind = "apply_refused"

    def __init__(self, message: str, reason: str, **data: Any) -> None:
        super().__init__(message, reason=reason, **data)
        self.reason = reason


class RestoreOutstanding(AutotunedError):
    """A live provider is still owed a restore: nothing new may start."""

    kind = "restore_outstanding"


class ShuttingDown(AutotunedError):
    """The agent is stopping and takes no new work."""

    kind = "shutting_down"


class StoreError(AutotunedError):
    """The database cannot be opened or written: names the path and the remedy."""

    kind = "store_error"


class AlreadyRunning(AutotunedError):
    """Another agent owns this home, or its socket folder cannot be trusted."""

    kind = "already_running"


class UnsafePath(AutotunedError):
    """A folder, socket or file has the wrong owner, type, length or mode; `why` says what to fix."""

    kind = "unsafe_path"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}", path=str(path))
