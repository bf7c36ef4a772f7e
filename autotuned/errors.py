"""Every way in which the agent can refuse or fail, each with a stable `kind`.

A message is one sentence for a person and names the thing, the value and the rule; `data` is for
programs. Expected outcomes of a tune (a candidate that does not fit, a gate that is missed) are
values in the history, never one of these. Knows nothing of sockets, SQL or processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
        super().__init__(f"{field}: {value!r} {rule}", field=field, value=value, rule=rule)
        self.field, self.value, self.rule = field, value, rule


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

    def __init__(self, message: str, conflicts: Sequence[str]) -> None:
        super().__init__(message, conflicts=list(conflicts))
        self.conflicts = tuple(conflicts)


class Busy(AutotunedError):
    """Another run is active."""

    kind = "busy"


class NotFound(AutotunedError):
    """No such run, subscription or backup."""

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
    """A folder, socket or file has the wrong owner, type, length or mode; the message says what to fix."""

    kind = "unsafe_path"
