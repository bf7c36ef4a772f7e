"""What agent and client must agree on: names, codes and limits of the control socket.

The client loads it for every command, so it needs the standard library only and stays quick to load.
Must not know how anything is served or rendered.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

PROTOCOL: Final = 1
SPEC_VERSION: Final = "SPEC-013 v0.3"

# --- where the socket is -----------------------------------------------------------------------
SOCKET_VARIABLE: Final = "AUTOTUNED_SOCKET"
SUN_PATH_MAX: Final = 103 if sys.platform == "darwin" else 107
"""Longest socket path in bytes: `sun_path` holds 104 (macOS) or 108 (Linux) with its NUL."""


def config_folder(environ: Mapping[str, str] = os.environ) -> str:
    """The folder that agent and provider share: `~/.config/macprovider`."""
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - pathlib costs start-up time
    return f"{home}/.config/macprovider"


def socket_path(environ: Mapping[str, str] = os.environ) -> str:
    """The control socket: `AUTOTUNED_SOCKET`, else `run/autotuned.sock` in the shared folder."""
    return environ.get(SOCKET_VARIABLE) or f"{config_folder(environ)}/run/autotuned.sock"


def log_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Where the agent's logs are: `~/Library/Logs/autotuned`, elsewhere `$XDG_STATE_HOME/autotuned`."""
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
    if sys.platform == "darwin":
        return f"{home}/Library/Logs/autotuned"
    return f"{environ.get('XDG_STATE_HOME') or f'{home}/.local/state'}/autotuned"


LOG_NAME: Final = "autotuned.log"

# --- limits of the socket -----------------------------------------------------------------------
MAX_LINE_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 8192
"""Values that one line may hold: a mebibyte of `[],` would be a hundred times as much in memory."""
MAX_BATCH: Final = 32
MAX_CONNECTIONS: Final = 128
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024

# --- errors --------------------------------------------------------------------------------------
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
BUSY: Final = -32001
PROVIDER_CONFLICT: Final = -32002
NOT_FOUND: Final = -32003
APPLY_REFUSED: Final = -32004
RESTORE_OUTSTANDING: Final = -32005
SHUTTING_DOWN: Final = -32006

# --- how a run ends, and what the client then exits with ------------------------------------------
EXIT_CODES: Final[Mapping[str, int]] = {
    "ok": 0,
    "internal_error": 1,
    "config_error": 2,
    "no_feasible": 3,
    "budget_exhausted_no_model_selected": 4,
    "budget_exhausted_with_partial_recommendation": 5,
    "interrupted": 6,
    "provider_conflict": 7,
    "pre_warm_integrity_failure": 8,
}
EXIT_UNREACHABLE: Final = 9
EXIT_BUSY: Final = 10
EXIT_NO_SUCH_RUN: Final = 11
EXIT_APPLY_REFUSED: Final = 12
EXIT_RESTORE_OUTSTANDING: Final = 13
EXIT_STALE: Final = 20
EXIT_NEVER_TUNED: Final = 21
EXIT_SLOWER: Final = 22
EXIT_INTERRUPTED_HERE: Final = 130
