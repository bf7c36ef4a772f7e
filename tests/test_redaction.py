"""What is masked, and what must stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.shared.redaction import MASK, is_telling, known_secrets, masker

SECRETS = st.text("0123456789.+*[(\\-$", min_size=6, max_size=40)
AROUND = st.text("abc \n\t:=", max_size=40)


@given(SECRETS, AROUND, AROUND)
def test_a_known_secret_is_gone_wherever_it_stands(secret: str, before: str, after: str) -> None:
    masked = masker([secret, "another-one"])(f"{before}{secret}{after}")
    assert secret not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        "token: abcdef123456",
        '{"api_key": "abcdef123456"}',
        "HF_TOKEN=abcdef123456",
        "Authorization: Bearer abcdef123456",
        "https://me:abcdef123456@example.org/x",
        "got hf_abcdef123456abcdef123456",
        "db-password = 'abcdef123456'",
    ],
)
def test_what_looks_like_a_secret_is_masked_unknown_as_it_is(text: str) -> None:
    masked = masker([])(text)
    assert "abcdef123456" not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt_tokens": 123456, "completion_tokens": 654321}',
        "tokenizer: /home/me/models/tokenizer.json",
        "author: somebody-else",
        "keyboard: qwerty-layout",
        "TOKENIZERS_PARALLELISM=false-ish",
        "max_tokens = 1234567",
        "exited with code 3: fatal error: out of memory",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert masker([])(text) == text


def test_secrets_are_known_from_variables_yaml_and_the_stored_hub_token(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model: acme/big\n"
        "token: first-secret   # why\n"
        'nested:\n  provider_secret: "second secret"\n'
        "private_key: |\n  third-line-1\n  third-line-2\n"
        "port: 8080\n",
        encoding="utf-8",
    )
    (tmp_path / "token").write_text("hub-secret\n", encoding="utf-8")
    environ = {"HF_HOME": str(tmp_path), "MY_API_KEY": "from-environ", "PATH": "/usr/bin:/bin"}
    found = known_secrets(environ, [str(config), str(tmp_path / "missing")])
    assert found == {
        "first-secret",
        "second secret",
        "third-line-1",
        "third-line-2",
        "hub-secret",
        "from-environ",
    }


def test_masked_json_is_still_json() -> None:
    masked = masker(["the-secret-word"])(json.dumps({"a": "x the-secret-word y", "token": "z" * 9}))
    assert json.loads(masked) == {"a": f"x {MASK} y", "token": MASK}


def test_names_that_tell() -> None:
    assert is_telling("HF_TOKEN")
    assert is_telling("coordinator-secret")
    assert not is_telling("max_tokens")
    assert not is_telling("SSH_AUTH_SOCK")
