"""The wheel and the sdist: what an operator installs has the programs, the job's templates and the manual pages."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import click
import pytest

from tests.support.home import Home

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PATIENCE_S = 120.0


def run(*words: object, **environ: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environ or None,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of this checkout, and one that is built out of its sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    run(*build, "--wheel", "--outdir", folder / "checkout", ROOT)
    run(*build, "--sdist", "--outdir", folder, ROOT)
    [sdist] = folder.glob("*.tar.gz")
    words = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        folder / "sdist",
        sdist,
    ]
    run(sys.executable, "-m", "pip", "wheel", *words)
    return {kind: next((folder / kind).glob("*.whl")) for kind in ("checkout", "sdist")}


@pytest.mark.parametrize("kind", ["checkout", "sdist"])
def test_an_installed_package_has_all_that_its_programs_need(
    kind: str, wheels: dict[str, Path], tmp_path: Path, home: Home
) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
    ]
    run(*install, wheels[kind])
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(click.__file__).parents[1]}\n", encoding="utf-8")
    client = tmp_path / "env" / "bin" / "autotunectl"
    where = run(python, "-c", "import autotuned, autotunectl; print(autotuned.__file__)")
    assert where.startswith(str(site))
    assert run(client, "--version", **home.environ) == run(
        sys.executable, "-m", "autotunectl", "--version", **home.environ
    )
    assert "macprovider" in run(client, "servers", **home.environ)
    templates = {path.name for path in (site / "autotunectl" / "launchd").iterdir()}
    assert templates == {path.name for path in (ROOT / "launchd").iterdir()}
    manual = {path.name for path in (tmp_path / "env" / "share" / "man" / "man1").iterdir()}
    assert manual == {path.name for path in (ROOT / "docs" / "man").glob("*.1")}
