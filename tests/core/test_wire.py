"""What agent and client agree on: paths from the environment, one exit code for each outcome."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autotuned.documents.result import ExitReason
from autotuned.shared import wire


def test_the_socket_lies_in_the_shared_folder_of_the_home() -> None:
    assert wire.socket_path({"HOME": "/h"}) == "/h/.config/macprovider/run/autotuned.sock"
    assert wire.socket_path({"HOME": "/h", "AUTOTUNED_SOCKET": "/s"}) == "/s"
    assert wire.socket_path({"HOME": "/h", "AUTOTUNED_SOCKET": ""}).startswith("/h/")
    assert wire.config_folder({}).startswith(os.path.expanduser("~"))  # noqa: PTH111


def test_every_exit_reason_has_a_code_and_no_two_share_one() -> None:
    assert set(wire.EXIT_CODES) == set(ExitReason)
    codes = [
        *wire.EXIT_CODES.values(),
        wire.EXIT_UNREACHABLE,
        wire.EXIT_BUSY,
        wire.EXIT_NO_SUCH_RUN,
        wire.EXIT_APPLY_REFUSED,
        wire.EXIT_RESTORE_OUTSTANDING,
    ]
    assert sorted(codes) == list(range(14))


def test_the_wire_loads_the_standard_library_only() -> None:
    program = (
        "import sys; before = set(sys.modules); import autotuned.shared.wire;"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(eval(done.stdout)) == {"autotuned", "autotuned.shared", "autotuned.shared.wire"}  # noqa: S307 - a list that we print


def test_logs_lie_where_the_system_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert wire.log_folder({"HOME": "/h"}) == "/h/Library/Logs/autotuned"
    monkeypatch.setattr(sys, "platform", "linux")
    assert wire.log_folder({"HOME": "/h"}) == "/h/.local/state/autotuned"
    assert wire.log_folder({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == "/s/autotuned"
    assert wire.log_folder({}).startswith(os.path.expanduser("~"))  # noqa: PTH111
