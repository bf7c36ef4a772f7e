"""What can go wrong between a client and the agent, by kind; `autotunectl.client` is where programs import it from.

Programs compare classes, `kind` and `code`, never sentences. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.shared import failures, wire


class ClientError(Exception):
    """The base of what can go wrong. `remedy`: a command or a sentence that says what to do, where one does."""

    kind = "unreachable"
    code: int | None = None
    data: Mapping[str, Any] = {}
    document: Mapping[str, Any] = {}
    """What a command prints with `--json` beside the error."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = failures.FAILURES[self.kind].exit_code
        usual = failures.FAILURES[self.kind].hint if type(self) is not ClientError else None
        self.remedy = remedy or usual


class Unreachable(ClientError):
    """No agent answers on the socket; the message says which of the usual reasons it is."""


class NotStarted(Unreachable):
    """An agent was started, and ended or said nothing; the message has its last words.

    `agent_code` is the code with which it ended: 2 is a store, a setting or a path that it cannot use.
    """

    kind = "not_started"

    def __init__(self, message: str, agent_code: int | None = None) -> None:
        super().__init__(message)
        if agent_code == wire.EXIT_CODES["config_error"]:
            self.exit_code = agent_code


class NoAnswer(ClientError):
    """The agent did not answer in time."""

    kind = "no_answer"


class WrongProtocol(ClientError):
    """Agent and client do not speak the same protocol, or what answers is no agent."""

    kind = "wrong_protocol"


class CommandError(ClientError):
    """A command that cannot do what it was asked to; its exit code says which kind of failure it is."""

    def __init__(self, message: str, exit_code: int, remedy: str | None = None) -> None:
        rows = failures.FAILURES.items()
        self.kind = next(
            (kind for kind, row in rows if row.exit_code == exit_code), "internal_error"
        )
        super().__init__(message)
        self.exit_code, self.remedy = exit_code, remedy


class CallError(ClientError):
    """The agent refused. `code` is one of `autotuned.shared.wire`, `data` is for programs."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        self.kind = failures.kind_of(code, data)
        super().__init__(message, failures.hint(self.kind, data))
        self.code, self.data = code, data
        self.exit_code = failures.find(self.kind, data).exit_code


class BadRequest(CallError):
    """A parameter is not usable: `data` names field, value and rule."""


class Busy(CallError):
    """Another run is active: `data["run_id"]`."""


class Conflict(CallError):
    """A live provider or a stranger is in the way: `data["conflicts"]`."""


class NotFound(CallError):
    """No such run, subscription, pull or entry."""


class ApplyRefused(CallError):
    """A recipe that may not be applied: `data["reason"]`."""


class RestoreOutstanding(CallError):
    """A live provider is still owed its restore: `data["lease"]`."""


class ShuttingDown(CallError):
    """The agent is stopping."""


class Unknown(CallError):
    """The agent has no such method: it is older than what asks."""


KINDS: Mapping[int, type[CallError]] = {
    wire.METHOD_NOT_FOUND: Unknown,
    wire.INVALID_PARAMS: BadRequest,
    wire.BUSY: Busy,
    wire.PROVIDER_CONFLICT: Conflict,
    wire.NOT_FOUND: NotFound,
    wire.APPLY_REFUSED: ApplyRefused,
    wire.RESTORE_OUTSTANDING: RestoreOutstanding,
    wire.SHUTTING_DOWN: ShuttingDown,
}
