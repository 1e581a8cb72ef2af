"""Trace fields as octets: complete, safe whatever the client called itself, parsed by others."""

import email
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import path_or_null
from gateway.message import trace
from tests.support.policies import STRANGER, USER

NOW = 1_800_000_000.7


def test_received_names_client_host_protocol_id_and_the_only_recipient() -> None:
    field = trace.received(USER, "mail.example.org", "0123456789ABCDEF", "bob@x.example", NOW)
    assert field == (
        b"Received: from mx.sender.example (unknown [203.0.113.7])\r\n"
        b"\t(using TLSv1.3 with cipher AES)\r\n"
        b"\tby mail.example.org (Smarthost) with ESMTPSA id 0123456789ABCDEF\r\n"
        b"\tfor <bob@x.example>;\r\n"
        b"\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


def test_received_without_tls_and_for_several_recipients() -> None:
    session = replace(STRANGER, client_ip="2001:db8::1", client_name="mx.known.example", is_esmtp=False)
    assert trace.received(session, "h", "Q", "", NOW) == (
        b"Received: from mx.sender.example (mx.known.example [IPv6:2001:db8::1])\r\n"
        b"\tby h (Smarthost) with SMTP id Q;\r\n\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("esmtp", "tls", "user", "word"),
    [
        (False, False, False, "SMTP"),
        (True, False, False, "ESMTP"),
        (True, True, False, "ESMTPS"),
        (True, True, True, "ESMTPSA"),
        (True, False, True, "ESMTPA"),
    ],
)
def test_the_protocol_word(esmtp: bool, tls: bool, user: bool, word: str) -> None:
    session = replace(STRANGER, is_esmtp=esmtp, tls=USER.tls if tls else None, user="a@b" if user else None)
    assert f" with {word} id Q".encode() in trace.received(session, "h", "Q", "", NOW)


def test_the_protocol_word_of_a_transaction_with_smtputf8() -> None:
    assert b" with UTF8SMTPSA id Q" in trace.received(USER, "h", "Q", "", NOW, smtputf8=True)
    assert b" with UTF8SMTP id Q" in trace.received(STRANGER, "h", "Q", "", NOW, smtputf8=True)


@given(
    st.text(max_size=400),
    st.none() | st.text(max_size=400),
    st.sampled_from(["", "a@b.example", "ü@b.example", '"a > b"@x.example']),
)
def test_received_is_one_field_of_ascii_lines_whatever_the_client_says(helo: str, name: str | None, to: str) -> None:
    session = replace(STRANGER, helo=helo, client_name=name)
    field = trace.received(session, "mail.example.org", "0123456789ABCDEF", to, NOW)
    lines = field.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert all(len(line) <= 998 and all(octet == 9 or 32 <= octet < 127 for octet in line) for line in lines)
    parsed = email.message_from_bytes(field + b"\r\n")
    assert parsed.keys() == ["Received"]
    assert parsedate_to_datetime(str(parsed["Received"]).rpartition(";")[2].strip()).timestamp() == int(NOW)


def test_the_other_fields() -> None:
    assert trace.return_path(path_or_null("")) == b"Return-Path: <>\r\n"
    assert trace.return_path(path_or_null("jürgen@x.example")) == "Return-Path: <jürgen@x.example>\r\n".encode()
    assert trace.delivered_to("a@b.example") == b"Delivered-To: a@b.example\r\n"
    assert trace.date_field(0.0) == b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    assert trace.message_id_field("Q", "h.example") == b"Message-ID: <Q@h.example>\r\n"
