"""The parts of a message: examples of the RFCs, odd structure and its faults, and laws that hold for any octets."""

# ruff: noqa: E501 - messages
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.mime import AMBIGUOUS, FAULTS, MAX_DEPTH, MAX_PARTS, Part, Structure, walk
from tests.support.hostile import ENCODINGS, HEADER, MIXED, NAMES, START, STRUCTURE, nested_messages, nested_multiparts

# RFC 2046 5.1.1
SIMPLE = (
    b"From: Nathaniel Borenstein <nsb@bellcore.com>\r\nTo: Ned Freed <ned@innosoft.com>\r\n"
    b"Date: Sun, 21 Mar 1993 23:56:48 -0800 (PST)\r\nSubject: Sample message\r\nMIME-Version: 1.0\r\n"
    b'Content-type: multipart/mixed; boundary="simple boundary"\r\n\r\n'
    b"This is the preamble.  It is to be ignored, though it\r\nis a handy place for composition agents to include an\r\n"
    b"explanatory note to non-MIME conformant readers.\r\n\r\n--simple boundary\r\n\r\n"
    b"This is implicitly typed plain US-ASCII text.\r\nIt does NOT end with a linebreak.\r\n--simple boundary\r\n"
    b"Content-type: text/plain; charset=us-ascii\r\n\r\nThis is explicitly typed plain US-ASCII text.\r\n"
    b"It DOES end with a linebreak.\r\n\r\n--simple boundary--\r\n\r\nThis is the epilogue.  It is also to be ignored.\r\n"
)
# RFC 2046 5.1.5, shortened
DIGEST = (
    b'Subject: Internet Digest, volume 42\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary="---- main"'
    b"\r\n\r\n------ main\r\n\r\n...Introductory text...\r\n------ main\r\nContent-Type: multipart/digest;\r\n"
    b' boundary="---- next message"\r\n\r\n------ next message\r\n\r\nFrom: someone-else\r\nSubject: my opinion\r\n\r\n'
    b"...body goes here ...\r\n------ next message\r\n\r\nFrom: someone-else-again\r\nSubject: my different opinion\r\n"
    b"\r\n...another body...\r\n------ next message--\r\n------ main--\r\n"
)


def shape(octets: bytes) -> list[tuple[str, str]]:
    return [(part.number, part.media_type) for part in walk(octets).parts]


def bodies(octets: bytes) -> list[bytes]:
    return [octets[part.start : part.end] for part in walk(octets).parts if part.is_leaf]


def only(octets: bytes, media_type: str) -> Part:
    (part,) = (part for part in walk(octets).parts if part.media_type == media_type)
    return part


def test_the_example_of_rfc_2046() -> None:
    assert shape(SIMPLE) == [("", "multipart/mixed"), ("1", "text/plain"), ("2", "text/plain")]
    assert bodies(SIMPLE) == [
        b"This is implicitly typed plain US-ASCII text.\r\nIt does NOT end with a linebreak.",
        b"This is explicitly typed plain US-ASCII text.\r\nIt DOES end with a linebreak.\r\n",
    ]
    assert walk(SIMPLE).faults == set()


def test_the_digest_of_rfc_2046() -> None:
    assert shape(DIGEST) == [
        ("", "multipart/mixed"), ("1", "text/plain"), ("2", "multipart/digest"), ("2.1", "message/rfc822"),
        ("2.1.1", "text/plain"), ("2.2", "message/rfc822"), ("2.2.1", "text/plain"),
    ]  # fmt: skip
    assert bodies(DIGEST) == [b"...Introductory text...", b"...body goes here ...", b"...another body..."]
    assert walk(DIGEST).faults == set()


def test_a_message_without_fields_of_mime_is_one_text() -> None:
    octets = b"Subject: x\r\n\r\nhello\r\n--x\r\n"
    assert shape(octets) == [("", "text/plain")]
    assert bodies(octets) == [b"hello\r\n--x\r\n"]
    assert walk(octets).faults == set()


def test_a_header_alone_is_a_message() -> None:
    """RFC 5322 3.5: the body is optional, and the blank line with it."""
    assert walk(HEADER).faults == set()


def test_parts_know_depth_names_and_encoding() -> None:
    part = only(
        MIXED + b'--B\r\nContent-Type: image/png; name="b.png"\r\nContent-Transfer-Encoding: BASE64\r\n'
        b'Content-Disposition: Inline; filename="a.png"\r\n\r\nx\r\n--B--\r\n',
        "image/png",
    )
    assert (part.depth, part.names, part.encoding, part.disposition.word) == (1, ("a.png", "b.png"), "base64", "inline")


def test_a_type_that_is_none_is_text() -> None:
    """RFC 2045 5.2."""
    assert shape(START + b"Content-Type: nonsense\r\n\r\nx") == [("", "text/plain")]


def test_a_closing_delimiter_of_the_outer_multipart_ends_the_inner_one() -> None:
    octets = MIXED + b"--B\r\nContent-Type: multipart/x; boundary=C\r\n\r\n--C\r\n\r\nx\r\n--B\r\n\r\ny\r\n--B--\r\n"
    assert shape(octets) == [("", "multipart/mixed"), ("1", "multipart/x"), ("1.1", "text/plain"), ("2", "text/plain")]
    assert bodies(octets) == [b"x", b"y"]
    assert walk(octets).faults == {"unterminated"}


def test_blanks_behind_a_delimiter_are_padding() -> None:
    octets = MIXED + b"--B \t\r\n\r\nx\r\n--B-- \r\n"
    assert (bodies(octets), walk(octets).faults) == ([b"x"], set())


def test_a_delimiter_needs_no_line_in_front() -> None:
    assert bodies(MIXED + b"--B\r\n--B\r\n\r\n\r\n--B--")[1:] == [b""]


def test_the_message_in_a_message_ends_with_its_part() -> None:
    octets = MIXED + b"--B\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nhello\r\n--B\r\n\r\nx\r\n--B--\r\n"
    assert bodies(octets) == [b"hello", b"x"]
    outer = only(octets, "message/rfc822")
    assert octets[outer.start : outer.end] == b"Subject: y\r\n\r\nhello"
    assert (outer.is_leaf, outer.is_multipart) == (False, False)


def test_an_encoded_message_is_a_leaf() -> None:
    octets = START + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDo="
    assert shape(octets) == [("", "message/rfc822")]


def test_a_message_must_not_be_encoded() -> None:
    """RFC 2046 5.2.1, and readers disagree about one that is."""
    octets = START + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDo="
    assert "encoded_multipart" in walk(octets).faults


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("empty", {"bad_header"}),
        ("only a line end", {"bad_header"}),
        ("body without header", {"bad_header"}),
        ("no final line end", set()),
        ("lines end with CR", {"bad_header"}),
        ("multiparts 10 deep", set()),
        ("messages 10 deep", set()),
        ("messages 1000 deep", {"too_deep"}),
        ("one boundary for both", {"too_deep", "unterminated"}),
        ("one boundary begins with the other", set()),
        ("no boundary named", {"no_boundary"}),
        ("empty boundary", {"no_boundary"}),
        ("boundary never comes", {"missing_boundary"}),
        ("letters behind the boundary", {"odd_boundary"}),
        ("no closing delimiter", {"unterminated"}),
        ("10,000 parts", {"too_many_parts"}),
        ("200,000 dashed lines", {"too_many_parts", "missing_boundary"}),
        ("two boundaries", {"two_parameters", "hidden_part"}),
        ("two content types", {"two_content_types"}),
        ("part in the preamble", {"hidden_part"}),
        ("part in the epilogue", {"hidden_part"}),
        ("part header without end", {"bad_part_header"}),
        ("line without a colon in a part header", {"bad_part_header"}),
        ("fragment of a message", {"partial"}),
        ("body elsewhere", {"external_body"}),
        ("mbox line first", {"bad_header"}),
        ("byte order mark first", {"bad_header"}),
        ("bounce of a bounce", set()),
        ("random octets", {"bad_header"}),
    ],
)
def test_faults_of_structure(name: str, faults: set[str]) -> None:
    assert walk(STRUCTURE[name]).faults == faults


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("unknown encoding", {"unknown_encoding"}),
        ("two encodings", {"two_encodings"}),
        ("base64 multipart", {"encoded_multipart", "missing_boundary"}),
        ("encoding with a comment", set()),
    ],
)
def test_faults_of_encodings(name: str, faults: set[str]) -> None:
    assert walk(ENCODINGS[name]).faults == faults


@pytest.mark.parametrize("name", ["2,000 segments", "huge number", "5,000 letters"])
def test_parameters_that_are_cut_are_a_fault(name: str) -> None:
    assert "long_parameters" in walk(NAMES[name]).faults


def test_a_boundary_of_the_length_that_is_allowed_is_found() -> None:
    boundary = b"b" * 70
    octets = START + b"Content-Type: multipart/x; boundary=" + boundary + b"\r\n\r\n--" + boundary + b"\r\n\r\nx\r\n--"
    assert bodies(octets + boundary + b"--\r\n") == [b"x"]


def test_a_text_between_the_parts_is_no_part() -> None:
    octets = (
        MIXED + b"--B\r\nContent-Type: multipart/x; boundary=C\r\n\r\nin\r\n--C\r\n\r\nx\r\n--C--\r\nout\r\n--B--\r\n"
    )
    assert (bodies(octets), walk(octets).faults) == ([b"x"], set())


@pytest.mark.parametrize(
    "place", [b"--C--\r\nContent-Type: x/y\r\n\r\nMZ", b"Content-Disposition: x\r\n\r\nMZ\r\n--C--"]
)
def test_a_part_that_hides_in_an_inner_multipart_is_told(place: bytes) -> None:
    inner = b"--B\r\nContent-Type: multipart/x; boundary=C\r\n\r\n" + place + b"\r\n--B--\r\n"
    assert walk(MIXED + inner).faults & {"hidden_part", "missing_boundary"}


def test_depth_is_bounded() -> None:
    for octets in (nested_multiparts(1000), nested_messages(1000)):
        structure = walk(octets)
        assert "too_deep" in structure.faults
        assert max(part.depth for part in structure.parts) == MAX_DEPTH


def test_the_number_of_parts_is_bounded() -> None:
    assert len(walk(STRUCTURE["10,000 parts"]).parts) == MAX_PARTS


def test_all_faults_are_listed() -> None:
    assert set(FAULTS) >= AMBIGUOUS


# --- what two readers see as two messages is a fault ---------------------------------------------------------------


def decoyed(content_type: bytes, real: bytes, decoy: bytes) -> bytes:
    """Parts by the boundary `real`, an attachment among them, within the one part by the boundary `decoy`."""
    attachment = b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n"
    inner = b"--" + real + b"\r\n" + attachment + b"--" + real + b"--\r\n"
    return START + content_type + b"\r\n\r\n--" + decoy + b"\r\n\r\nhello\r\n" + inner + b"--" + decoy + b"--\r\n"


def is_seen(structure: Structure) -> bool:
    return bool(structure.faults & AMBIGUOUS) or any("a.exe" in part.names for part in structure.parts)


@pytest.mark.parametrize(
    ("content_type", "real", "decoy"),
    [
        (b'Content-Type: multipart/mixed; boundary="=?us-ascii?q?X?="', b"=?us-ascii?q?X?=", b"X"),
        (b'Content-Type: multipart/mixed; boundary=" X"', b" X", b"X"),
        (b'Content-Type: multipart/mixed; boundary="\\X"', b"\\X", b"X"),
        (b"Content-Type: multipart/mixed; boundary=X y", b"X", b"X y"),
        (b'Content-Type: multipart/mixed; boundary=X(c); a="y"', b"X", b"X(c)"),
        (b'Content-Type: multipart/mixed; boundary="X"y', b'"X"y', b"X"),
        (b"Content-Type: multipart/mixed; boundary=X, y", b"X", b"X, y"),
        (b"Content-Type: multipart/mixed; boundary=X; boundary=Y", b"Y", b"X"),
        (b"Content-Type: multipart/mixed; boundary=X\r\nContent-Type: multipart/mixed; boundary=Y", b"Y", b"X"),
        (b"Content-Type: multipart/mixed; boundary*=us-ascii''X; boundary=Y", b"Y", b"X"),
        (b'Content-Type: multipart/mixed; boundary="X\xc3"', b"X\xc3", b"X"),
    ],
)
def test_no_reading_of_the_boundary_hides_a_part(content_type: bytes, real: bytes, decoy: bytes) -> None:
    assert is_seen(walk(decoyed(content_type, real, decoy)))


@pytest.mark.parametrize(
    "value",
    [
        b'(x) multipart/mixed; boundary="X"',
        b"(x) multipart/mixed; boundary=X",
        b'multipart(x)/mixed; boundary="X"',
        b"multipart / mixed; boundary=X",
        b'"multipart/mixed"; boundary=X',
        b"Multipart/MIXED ; boundary = X",
    ],
)
def test_no_way_to_write_the_type_hides_a_part(value: bytes) -> None:
    octets = (
        START + b"Content-Type: " + value + b"\r\n\r\n--X\r\nContent-Disposition: x; filename=a.exe\r\n\r\nMZ\r\n--X--"
    )
    assert is_seen(walk(octets))


def test_the_header_of_a_message_in_a_message_ends_before_a_delimiter() -> None:
    octets = (
        MIXED + b"--B\r\nContent-Type: message/rfc822\r\n\r\nContent-Disposition: inline; filename=a.txt\r\n--B\r\n"
        b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--B--\r\n"
    )  # fmt: skip
    assert is_seen(walk(octets))
    assert [part.number for part in walk(octets).parts][-1] == "2"


def test_a_delimiter_with_a_colon_is_no_field_of_a_part_header() -> None:
    octets = (
        START + b'Content-Type: multipart/mixed; boundary="B:x"\r\n\r\n--B:x\r\nContent-Disposition: x; filename=a.txt\r\n'
        b"--B:x\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--B:x--\r\n"
    )  # fmt: skip
    assert is_seen(walk(octets))


def test_a_bounce_with_a_header_alone_has_no_fault() -> None:
    """As many MTAs write them: the returned header without a blank line behind it."""
    octets = (
        START + b"Content-Type: multipart/report; boundary=R\r\n\r\n--R\r\n\r\nfailed\r\n--R\r\n"
        b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\nFrom: a@b.example\r\n--R--\r\n"
    )  # fmt: skip
    structure = walk(octets)
    assert structure.faults == set()
    assert [part.number for part in structure.parts] == ["", "1", "2", "2.1"]


def test_a_long_header_of_a_message_in_a_message_is_read_to_its_end_or_told() -> None:
    long = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(170))
    inner = (
        long + b"Content-Type: multipart/mixed; boundary=Q\r\n\r\n--Q\r\nContent-Type: x/y; name=a.exe\r\n\r\n\r\n--Q--"
    )
    assert is_seen(walk(START + b"Content-Type: message/rfc822\r\n\r\n" + inner))


def test_a_message_in_an_unknown_encoding_is_walked() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=Q\r\n\r\n--Q\r\nContent-Type: x/y; name=a.exe\r\n\r\n\r\n--Q--"
    fields = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8-bit\r\n\r\n"
    assert is_seen(walk(START + fields + inner))


# --- laws ---------------------------------------------------------------------------------------------------------

PIECES = [
    b"--B\r\n", b"--B--\r\n", b"--C\r\n", b"--C--\r\n", b"--Cx\r\n", b"\r\n", b"\n", b"\r", b"text\r\n", b"\0", b"\xff",
    b"Content-Type: multipart/mixed; boundary=B\r\n\r\n", b'Content-Type: multipart/x; boundary="C"\r\n\r\n',
    b"Content-Type: message/rfc822\r\n\r\n", b"Content-Type: multipart/digest; boundary=B\r\n\r\n", b"Subject: x\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"no field\r\n", b"--B:", b" folded\r\n", b"--",
]  # fmt: skip
messages = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=40).map(lambda pieces: MIXED + b"".join(pieces)),
)


def check(octets: bytes, structure: Structure) -> None:
    assert structure.faults <= set(FAULTS)
    assert 1 <= len(structure.parts) <= MAX_PARTS
    starts = [part.start for part in structure.parts]
    assert starts == sorted(starts)
    assert all(0 <= part.start <= part.end <= len(octets) for part in structure.parts)
    leaves = [part for part in structure.parts if part.is_leaf]
    assert all(one.end <= two.start for one, two in pairwise(leaves))
    numbers = [part.number for part in structure.parts]
    assert len(set(numbers)) == len(numbers)


@given(messages, st.booleans())
def test_any_octets_have_parts_within_them_in_order(octets: bytes, is_fragment: bool) -> None:
    check(octets, walk(octets, is_fragment=is_fragment))


@given(st.sampled_from([SIMPLE, DIGEST, STRUCTURE["bounce of a bounce"], nested_multiparts(3)]), st.data())
def test_whatever_is_put_into_a_message_its_parts_stay_within_it(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(octets)))
    changed = octets[:at] + data.draw(st.one_of(st.binary(max_size=20), st.sampled_from(PIECES))) + octets[at:]
    check(changed, walk(changed))


@given(st.sampled_from([SIMPLE, DIGEST, nested_multiparts(3)]), st.data())
def test_a_message_that_is_cut_off_keeps_the_parts_before(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(octets.index(b"\r\n\r\n") + 4, len(octets)))
    whole, cut = walk(octets), walk(octets[:at])
    check(octets[:at], cut)
    done = [part.number for part in whole.parts if part.end < at - 20]
    assert done == [part.number for part in cut.parts][: len(done)] or set(done) <= {part.number for part in cut.parts}


@given(st.lists(st.binary(max_size=40).filter(lambda body: b"--" not in body), min_size=1, max_size=6))
def test_bodies_come_back_as_they_were(written: list[bytes]) -> None:
    octets = MIXED + b"".join(b"--B\r\nContent-Type: x/y\r\n\r\n" + body + b"\r\n" for body in written) + b"--B--\r\n"
    assert bodies(octets) == written
    assert walk(octets).faults == set()
