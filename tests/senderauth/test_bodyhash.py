"""Body hashes: equal to dkimpy's on any body of lines, however it is cut; linear where dkimpy is not."""

import hashlib
import itertools

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from gateway.senderauth.bodyhash import BodyHashes

FORMS = {"simple": Simple, "relaxed": Relaxed}
bodies = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"  ", b"xyz", b"\r\n\r\n", b"\xff."]), max_size=12).map(
    lambda parts: b"".join(parts)
)


def hashed(body: bytes, cuts: list[int], limit: int | None = None) -> BodyHashes:
    found = BodyHashes((form, bound) for form in FORMS for bound in (None, limit))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        found.feed(body[start:end])
    found.finish()
    return found


@given(bodies, st.lists(st.integers(0, 40), max_size=4), st.none() | st.integers(0, 50))
def test_hashes_are_those_of_dkimpy(body: bytes, cuts: list[int], limit: int | None) -> None:
    body = body + b"\r\n" if body and not body.endswith(b"\r\n") else body
    found = hashed(body, cuts, limit)
    for form, reference in FORMS.items():
        canonical = reference.canonicalize_body(body)
        assert found.length(form) == len(canonical)
        assert found.digest(form, None) == hashlib.sha256(canonical).digest()
        assert found.digest(form, limit) == hashlib.sha256(canonical[:limit]).digest()


@pytest.mark.parametrize(
    ("form", "body", "canonical"),
    [
        # RFC 6376 3.4.5, examples 1 and 2.
        ("relaxed", b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        ("simple", b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n"),
        # 3.4.3, 3.4.4: an empty body.
        ("simple", b"", b"\r\n"),
        ("simple", b"\r\n\r\n", b"\r\n"),
        ("relaxed", b"", b""),
        ("relaxed", b"\r\n \t\r\n", b""),
        # A last line without its end.
        ("simple", b"a ", b"a \r\n"),
        ("relaxed", b"a \t", b"a\r\n"),
        # Bare CR and LF are content; no receiver of ours lets them in.
        ("simple", b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n"),
        ("simple", b"a\r", b"a\r\r\n"),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_canonical_bodies(form: str, body: bytes, canonical: bytes, step: int) -> None:
    found = hashed(body, list(range(0, len(body), step)))
    assert (found.length(form), found.digest(form, None)) == (len(canonical), hashlib.sha256(canonical).digest())


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_no_octets_raise_and_cuts_change_nothing_of_simple(body: bytes, cuts: list[int]) -> None:
    assert hashed(body, cuts).digest("simple", None) == hashed(body, []).digest("simple", None)


@pytest.mark.parametrize("unit", [b" " * 990 + b"\r\n", b"\r\n", b" ", b"a \t", b"\t \r\n", b"a\r"], ids=repr)
def test_nothing_that_waits_is_kept(unit: bytes) -> None:
    """So each chunk is looked at once, whatever came before it."""
    found = BodyHashes((form, None) for form in FORMS)
    body = unit * (1_000_000 // len(unit))
    for start in range(0, len(body), 65536):
        found.feed(body[start : start + 65536])
        assert len(found._carried) <= 1
        for form in found._forms:
            held = [value for value in vars(form).values() if value is not vars(form)["_output"]]
            assert all(isinstance(value, int) for value in held)
