"""The flags of a recipe in somebody's command line: only they change, whatever the rest holds."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.command_line import Setting, current, is_whole, put, words

SLOTS = {"-np": 1, "--parallel": 1}
CONTEXT = {"-c": 1, "--ctx-size": 1, "-no-kvu": 0}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("llama-server -m a.gguf", "llama-server -m a.gguf -np 4"),
        ("llama-server -np 1 -m a.gguf", "llama-server -np 4 -m a.gguf"),
        ("llama-server --parallel 1 -m a.gguf", "llama-server -np 4 -m a.gguf"),
        ("llama-server --parallel=1 -m a.gguf", "llama-server -np 4 -m a.gguf"),
        ("llama-server -np 1 -m a -np 2", "llama-server -np 4 -m a"),
        ("llama-server -np 4 -m 'a b.gguf'", "llama-server -np 4 -m 'a b.gguf'"),
        ("llama-server \\\n  -np 2 \\\n  -m a\n", "llama-server \\\n  -np 4 \\\n  -m a\n"),
        ("llama-server \\\n  -m a\n", "llama-server \\\n  -m a -np 4\n"),
        ('llama-server -m "a \\" -np 9"', 'llama-server -m "a \\" -np 9" -np 4'),
        ("llama-server -np", "llama-server -np 4"),
        ("", " -np 4"),
    ],
)
def test_a_flag_is_put_where_it_stood_else_behind_the_last_word(before: str, after: str) -> None:
    assert put(before, [Setting(SLOTS, ("-np", "4"))]) == after


def test_a_knob_left_at_the_default_loses_its_flags() -> None:
    assert put("serve -c 4096 -no-kvu -m a", [Setting(CONTEXT, ())]) == "serve -m a"
    assert put("serve -m a -c 4096", [Setting(CONTEXT, ())]) == "serve -m a"
    assert put("serve -m a", [Setting(CONTEXT, ())]) == "serve -m a"
    assert put("-c 1 serve", [Setting(CONTEXT, ())]) == " serve"


def test_what_is_set_is_read_under_any_spelling() -> None:
    line = "serve --ctx-size=4096 -m a -no-kvu --parallel '2'"
    assert current(line, Setting(CONTEXT, ())) == ("--ctx-size=4096", "-no-kvu")
    assert current(line, Setting(SLOTS, ())) == ("--parallel", "2")


def test_words_are_read_as_the_shell_reads_them() -> None:
    line = r"""/opt/a\ b 'c d' "e\"f" g\\h i'j'"k" 'open"""
    values = [word.value for word in words(line)]
    assert values == ["/opt/a b", "c d", 'e"f', r"g\h", "ijk", "open"]
    assert [word.value for word in words("a 'b' \\")] == ["a", "b", "\\"]
    assert [word.value for word in words("' \"")] == [' "']
    assert [word.value for word in words('a "')] == ["a", ""]
    assert [word.value for word in words("a '")] == ["a", ""]


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


@given(st.lists(WORDS, min_size=1), st.lists(WORDS), st.integers(0, 99))
def test_every_other_word_stays_and_twice_is_once(
    left: list[str], right: list[str], n: int
) -> None:
    foreign = [word for word in (*left, *right) if word.split("=")[0] not in SLOTS]
    line = shlex.join([*foreign[: len(left)], "--parallel", "7", *foreign[len(left) :]])
    setting = Setting(SLOTS, ("-np", str(n)))
    written = put(line, [setting])
    assert put(written, [setting]) == written
    assert current(written, setting) == ("-np", str(n))
    assert [w.value for w in words(put(written, [Setting(SLOTS, ())]))] == [
        word.value for word in words(shlex.join(foreign))
    ]


@given(st.text())
def test_any_text_has_words_that_lie_in_order_within_it(text: str) -> None:
    listed = words(text)
    ends = [0, *(place for word in listed for place in (word.start, word.end)), len(text)]
    assert ends == sorted(ends)


@pytest.mark.parametrize("text", ["", 'a \'b c\' "d\\"" e\\ f', "# don't\na b"])
def test_a_command_line_with_closed_quotes_is_whole(text: str) -> None:
    assert is_whole(text)


@pytest.mark.parametrize("text", ["a 0'", 'a "b\\"', "a b\\"])
def test_a_command_line_with_an_open_quote_is_not_whole(text: str) -> None:
    assert not is_whole(text)
