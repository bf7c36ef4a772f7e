"""What is a path and what is the name of a repository, and where a path leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuned import settings
from autotuned.errors import ConfigError
from autotuned.shared import paths
from autotuned.weights.cache import require_paths


@pytest.mark.parametrize(
    ("word", "path"),
    [
        *((word, True) for word in ("/", "/a", ".", "..", "./a", "../a", "~", "~/a", "~bob/m")),
        *((word, True) for word in ("a.gguf", "A-Q4_0.GGUF", "a/b/c.gguf")),
        *((word, False) for word in ("a", "a/b", "a/b.gguf", "a/b:Q4_0", ".a", "..a", "", "a/~b")),
    ],
)
def test_what_is_written_as_a_path_is_one(word: str, path: bool) -> None:
    assert paths.is_path(word) is path


def test_the_home_folder_stands_for_the_tilde_and_an_unknown_name_for_itself() -> None:
    environ = {"HOME": "/home/me"}
    assert paths.expanded("~", environ) == "/home/me"
    assert paths.expanded("~/a/../b", environ) == "/home/me/b"
    assert paths.with_home("~no-such-user-here/m", environ) == "~no-such-user-here/m"
    assert paths.with_home("~root/m", environ).endswith("/m")


def test_what_exists_is_a_path_with_or_without_a_dot_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "model").mkdir(parents=True)
    for word in ("acme/model", "./acme/model"):
        assert paths.resolved(word, {}) == str(tmp_path / "acme" / "model")
    assert paths.resolved("acme/other", {}) == "acme/other"
    assert paths.resolved("./none", {}) == str(tmp_path / "none")
    assert paths.resolved("", {}) == ""


def test_a_path_that_does_not_exist_is_an_error_of_the_request(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    (tmp_path / "m").mkdir()
    require_paths("candidate_models", ["~/m", str(tmp_path), "acme/none"], environ)
    for word in ("~/none", "none.gguf", str(tmp_path / "none"), "~no-such-user-here/m"):
        with pytest.raises(ConfigError, match="no such file or folder"):
            require_paths("candidate_models", [word], environ)


def test_a_tilde_in_any_path_of_the_settings_is_the_home_folder(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "macprovider"
    folder.mkdir(parents=True)
    (folder / "autotuned.toml").write_text(
        '[provider]\nbinary = "~/b"\n[live]\nplist = "~/p"\n[apply]\nconfig = "~/c"\n'
    )
    found = settings.load({"HOME": str(tmp_path), "AUTOTUNED_DB_PATH": "~/d"})
    assert found.provider.binary == tmp_path / "b"
    assert found.live.plist == tmp_path / "p"
    assert found.provider_config == tmp_path / "c"
    assert found.database == tmp_path / "d"
