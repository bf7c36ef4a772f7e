"""A live server of the same user in another home, beside which the tests run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.home import Home, X


def test_a_home_of_the_tests_sees_its_own_servers_alone(home: Home, tmp_path: Path) -> None:
    program = tmp_path / "macprovider-cli"
    program.write_text("import time; time.sleep(600)\n", encoding="utf-8")
    command = [sys.executable, str(program), "serve"]
    home.provider({X: {}})
    with subprocess.Popen(command, env={"HOME": str(tmp_path)}) as other:
        try:
            home.start_daemon()
            assert home.rpc("status")["live_provider"] is None
            with subprocess.Popen(command, env={"HOME": str(home.path)}) as ours:
                try:
                    refused = home.ctl("start", "--candidate-models", X)
                    assert refused.returncode == 7
                    assert f"foreground-PID-{ours.pid};" in refused.stderr
                finally:
                    ours.kill()
            assert home.ctl("start", "--candidate-models", X, "--dry-run").returncode == 0
        finally:
            other.kill()
