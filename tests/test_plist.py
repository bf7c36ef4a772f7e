"""Property lists are read as launchd reads them, and never raise."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.shared import plist

CONTENT = {"Label": "a.b", "ProgramArguments": ["/x/y", "serve"]}
XML = plistlib.dumps(CONTENT)
BODY = "<dict><key>Label</key><string>a.b</string></dict>"


@pytest.mark.parametrize(
    "data",
    [
        XML,
        plistlib.dumps(CONTENT, fmt=plistlib.FMT_BINARY),
        XML.replace(b"<dict>", b"<!-- add --max-batch 2 -->\n<dict>"),
        XML.replace(b"<dict>", b"<dict><!----><!-- - -- --- -->"),
        XML.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + XML,
        b"\n  " + XML,
        b"<!-- mine --ours -->" + XML,
        XML.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        XML.decode().replace("UTF-8", "UTF-16").encode("utf-16-be"),
        XML.decode().encode("utf-32"),
        XML.replace(b"UTF-8", b"macintosh"),
        XML.replace(b"UTF-8", b"no-such-encoding"),
        XML.replace(b'version="1.0" encoding="UTF-8"', b'version="1.1"'),
        XML.replace(b"<plist", b"<?xml-stylesheet href='x'?><plist"),
        XML + b"\n<!-- the end --\n",
        XML.replace(
            b'"http://www.apple.com/DTDs/PropertyList-1.0.dtd">',
            b'"x" [ <!ENTITY who "me"> ]>',
        ),
        XML.replace(b"serve", b"<![CDATA[serve]]>"),
        XML.replace(b"serve", b"ser\x01ve"),
    ],
)
def test_a_plist_that_launchd_reads_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.plist"
    path.write_bytes(data)
    assert plist.read(path) == CONTENT


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a & b", "a & b"),
        ("a &amp; b&#38;&#x26;", "a & b&&"),
        ("&nbsp;&who;", "&nbsp;&who;"),
        ("<![CDATA[a && b <!-- c -->]]>", "a && b <!-- c -->"),
    ],
)
def test_a_bare_ampersand_means_itself(text: str, meant: str) -> None:
    assert plist.parse(XML.replace(b"a.b", text.encode())) == {**CONTENT, "Label": meant}


def test_a_dictionary_without_the_plist_around_it_is_read() -> None:
    assert plist.parse(BODY.encode()) == {"Label": "a.b"}


def test_bytes_that_their_encoding_does_not_know_cost_no_other_key() -> None:
    found = plist.parse(XML.replace(b"a.b", b"caf\xe9"))
    assert not isinstance(found, plist.Unreadable)
    assert found["ProgramArguments"] == CONTENT["ProgramArguments"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no plist",
        b"bplist00",
        XML[:-30],
        b"<plist><array/></plist>",
        XML.replace(b"<string>a.b</string>", b"<date>yesterday</date>"),
        XML.replace(b"<string>a.b</string>", b"<integer>many</integer>"),
        XML.replace(b"a.b", b"&#0;"),
        b"<plist>" + b"<array>" * 100_000,
        b" " * (plist.LIMIT_BYTES + 1),
    ],
)
def test_a_plist_that_cannot_be_read_is_told_as_one_clause(data: bytes) -> None:
    found = plist.parse(data)
    assert isinstance(found, plist.Unreadable)
    assert "\n" not in found.reason
    assert found.reason


def test_a_file_that_is_not_there_or_is_a_folder_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        assert isinstance(plist.read(path), plist.Unreadable)


@given(
    st.one_of(
        st.binary(),
        st.binary().map(lambda data: b"bplist00" + data),
        st.binary().map(lambda data: XML.replace(b"a.b", data)),
        st.integers(0, len(XML)).map(lambda cut: XML[:cut]),
        st.text().map(lambda text: f"<plist>{text}</plist>".encode("utf-8", "replace")),
    )
)
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    found = plist.parse(data)
    assert isinstance(found, dict | plist.Unreadable)
    if isinstance(found, dict):
        assert all(isinstance(word, str) for word in plist.strings(found, "ProgramArguments"))
