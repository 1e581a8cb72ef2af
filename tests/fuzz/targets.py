"""The parsers of what strangers write for sender authentication, each as `target(data)`: an error is a finding.

A case can be read: its parts stand between lines of `%%`, and `{{piece*count}}` is the piece so many times, up to
MAX_GROWN octets, so that a short case shows what grows faster than its input. No case may take over LIMIT_S of
processor time. Needs no fuzzer: `run.py` drives it with atheris, `test_found_cases.py` plays seeds and found cases.
"""

import asyncio
import atexit
import base64
import email
import email.policy
import hashlib
import itertools
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from ipaddress import ip_address
from typing import Any, TypeVar

import authres
import dkim
from dkim.canonicalization import CanonicalizationPolicy
from dkim.util import InvalidTagValueList

from gateway.core.address import parse_domain, parse_mailbox
from gateway.core.ports import Answer, DnsFailure, NoData, NoDomain, Records
from gateway.message.blob import MemoryBlob
from gateway.message.header import Field, address_of, mailboxes, parse_header
from gateway.senderauth import arc as arc_room
from gateway.senderauth import dkim as dkim_room
from gateway.senderauth import dmarc as dmarc_room
from gateway.senderauth import spf as spf_room
from gateway.senderauth.bodyhash import BodyHashes
from gateway.senderauth.headerhash import header_digest
from gateway.senderauth.keys import KeyRefused, PublicKey, parse_key, signature_tags
from gateway.senderauth.results import Authentication, claimed_fields, results_field
from gateway.smtp.grammar import parse_helo

LIMIT_S = 2.0  # of processor time
MAX_GROWN = 256 * 1024  # octets of a case
HOST = "mx.example.org"
_GROWN = re.compile(rb"\{\{(.{1,200}?)\*(\d{1,6})\}\}", re.DOTALL)
_BETWEEN = b"\n%%\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_T = TypeVar("_T")
Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    """Bounded in time, and known by its name."""

    @wraps(function)
    def timed(data: bytes) -> None:
        data = _grown(data)
        started = time.process_time()
        function(data)
        took = time.process_time() - started
        assert took < LIMIT_S, f"took {took:.1f} s"

    TARGETS[function.__name__] = timed
    return timed


# --- targets ----------------------------------------------------------------------------------------------------------


@target
def key_record(data: bytes) -> None:
    """A record; or after `DER`, the octets of its RSA key; or after `RSA`, modulus and exponent."""
    if data.startswith(b"DER\n"):
        data = b"p=" + base64.b64encode(data[4:])
    elif data.startswith(b"RSA\n"):
        data = b"p=" + base64.b64encode(_rsa_der(*_parts(data[4:], 2)[:2]))
    try:
        key = parse_key(data)
    except KeyRefused:
        pass
    else:
        assert key.algorithm in ("rsa-sha256", "ed25519-sha256")
        for signature in (b"", b"x", data[:64].ljust(64), data[:128].ljust(128)):
            assert key.verifies(signature, bytes(32)) is False
    try:
        tags = signature_tags(data)
    except InvalidTagValueList:
        return
    assert not any(tags.get(tag, b"").split()[1:] for tag in (b"b", b"bh"))


@target
def dkim_signature(data: bytes) -> None:
    """Records, then a message. The record `believe` has every signature verify; @RELAXED@ and @SIMPLE@ are the hashes
    of the body.
    """
    zone, message = _zone_and_message(data)
    header = parse_header(message)
    with _believing(zone.believes):
        found = _run(dkim_room.verify_dkim(header, MemoryBlob(message), zone))
    assert len(found) == min(header.count("dkim-signature"), dkim_room.MAX_SIGNATURES)
    assert len(zone.asked) <= dkim_room.MAX_SIGNATURES
    assert dkim_room.summary(found) in dkim_room.RESULTS
    for number, each in enumerate(found):
        assert each.result in dkim_room.RESULTS
        assert each.result != "none"
        assert bool(each.reason) is (each.result != "pass")
        assert not each.domain or _is_name(each.domain)
        for text in (each.selector, each.algorithm, each.identity, each.signature, each.reason):
            assert len(text) < 200
            assert _is_printable(text)
        if each.result == "pass":
            assert each.domain
            if not zone.believes and not header.is_malformed and not _BARE.search(message[: header.end]):
                assert dkim.DKIM(message).verify(number, zone.for_dkimpy), "passes here, and not with dkimpy"
    _check_field(Authentication(_SPF, found, _DMARC, _ARC))


@target
def arc_chain(data: bytes) -> None:
    """As dkim_signature."""
    zone, message = _zone_and_message(data)
    header = parse_header(message)
    with _believing(zone.believes):
        found = _run(arc_room.verify_arc(header, MemoryBlob(message), zone))
    assert found.result in arc_room.RESULTS
    assert bool(found.sealers) is (found.result == "pass")
    assert bool(found.reason) is (found.result in ("fail", "temperror"))
    assert all(map(_is_name, found.sealers))
    assert _is_printable(found.reason)
    assert len(found.reason) < 200
    assert len(zone.asked) <= 51
    if found.result == "none":
        assert not any(header.count(name) for name in ("arc-seal", "arc-message-signature"))
    if found.result == "pass":
        assert len(found.sealers) == header.count("arc-seal") == header.count("arc-message-signature")
    _check_field(Authentication(_SPF, (), _DMARC, found))


@target
def dmarc_record(data: bytes) -> None:
    """A record; its tags will do."""
    found = dmarc_room.parse_dmarc(data if data.lstrip()[:1] in (b"v", b"V") else b"v=DMARC1;" + data)
    if found is None:
        return
    for word in (found.p, found.sp, found.np):
        assert word in dmarc_room.POLICIES or word == "" != found.p
    assert found.adkim in ("r", "s")
    assert found.aspf in ("r", "s")
    assert found.psd in ("y", "n", "u")
    assert found.p in dmarc_room.POLICIES
    assert found.for_subdomain(exists=False) in dmarc_room.POLICIES
    if found.is_usable:
        tags = {"p": found.p, "sp": found.sp, "np": found.np, "adkim": found.adkim, "aspf": found.aspf}
        tags |= {"psd": found.psd, "t": "y" if found.is_testing else "n", "rua": ",".join(found.rua)}
        text = "v=DMARC1;" + ";".join(f"{key}={value}" for key, value in tags.items() if value)
        assert len(text.encode()) > 4096 or dmarc_room.parse_dmarc(text.encode()) == found


@target
def dmarc(data: bytes) -> None:
    """Lines `spf RESULT DOMAIN`, `dkim RESULT DOMAIN`; records; a header."""
    told, *records, block = _parts(data, 2)
    zone = Zone(records)
    spf, signatures = _told(told)
    header = parse_header(block)
    found = _run(dmarc_room.evaluate_dmarc(header, spf, signatures, zone))
    assert found.result in dmarc_room.RESULTS
    assert found.policy in (*dmarc_room.POLICIES, "")
    assert bool(found.policy) is bool(found.policy_domain) is (found.record is not None)
    assert (found.spf_aligned or found.dkim_aligned) is (found.result == "pass")
    assert bool(found.domain) or found.result == "permerror"
    assert len(zone.asked) <= 8 * 12 + 3
    assert all(map(_is_name, (found.domain, found.policy_domain)[: bool(found.domain) + bool(found.policy_domain)]))
    assert f".{found.domain}".endswith(f".{found.policy_domain}") or not found.policy_domain
    if found.result == "pass" and found.record is not None:
        vouched = [(spf.domain, found.record.aspf)] if found.spf_aligned and spf is not None else []
        if found.dkim_aligned:
            vouched += [(each.domain, found.record.adkim) for each in signatures if each.result == "pass"]
        assert any(_may_vouch(domain, found.domain, mode) for domain, mode in vouched)
    if found.domain:
        (author,) = [field for field in header.fields if field.name.lower() == "from"]
        assert _authors(author.value) <= {found.domain}, "another reader takes another for the author"
    _check_field(Authentication(_SPF, signatures, found, _ARC))


@target
def spf(data: bytes) -> None:
    """A line `IP HELO SENDER`, then records."""
    client, *records = _parts(data, 1)
    ip, helo, sender = _client(client)
    zone = Zone(records)
    found = _run(spf_room.check_spf(ip, helo, sender, zone))
    assert found.result in spf_room.RESULTS
    assert found.identity == ("mailfrom" if sender else "helo")
    assert not found.domain or _is_name(found.domain)
    assert _is_printable(found.explanation)
    assert len(found.explanation) <= spf_room.MAX_EXPLANATION
    assert not found.explanation or found.result == "fail"
    assert len(zone.asked) <= spf_room.MAX_LOOKUPS
    assert len(set(zone.asked)) == len(zone.asked)
    assert zone.asked[:1] == ([(found.domain, "TXT")] if found.domain else []), "asks for another's record"
    _check_field(Authentication(found, (), _DMARC, _ARC))


@target
def field_written(data: bytes) -> None:
    """What is told by strangers, in a field of ours."""
    one, two, three = (part.decode("utf-8", "replace")[:1000] for part in _parts(data, 3)[:3])
    signature = dkim_room.DkimResult("fail", two, three, one, two, three, one)
    dmarc, arc = dmarc_room.DmarcResult("permerror", two, reason=three), arc_room.ArcResult("fail", (one,), two)
    _check_field(Authentication(spf_room.SpfResult("pass", one, "helo"), (signature,), dmarc, arc))


@target
def claimed(data: bytes) -> None:
    """The value of one Authentication-Results field, folded wherever it has a line end; `@` is our name."""
    value = re.sub(rb"[\r\n]+[ \t]*", b"\r\n ", data.rstrip(b"\r\n")).replace(b"@", HOST.encode())[:MAX_GROWN]
    header = parse_header(b"Subject: x\r\nAuthentication-Results:" + value + b"\r\n\r\n")
    found = claimed_fields(header, HOST)
    assert found in ((), (header.fields[1].raw,))
    if not found and len(value) <= 2000:
        for name, reading in _readings(value):
            assert not _is_host(reading), f"not seen as ours, but by a reader {name}"


@target
def body_hash(data: bytes) -> None:
    """A line of numbers, a limit and where to cut; then the body."""
    numbers, body = _parts(data, 2)[:2]
    limit, *cuts = [int(number[:6]) for number in re.findall(rb"\d+", numbers)[:9]] or [0]
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    found = _body_hashes(limit, [body[start:end] for start, end in itertools.pairwise(edges)])
    for form, canonical in (("simple", _simple_body(body)), ("relaxed", _relaxed_body(body))):
        if form == "relaxed" and _BARE.search(body):
            continue  # no receiver of ours lets them in
        assert found.length(form) == len(canonical)
        assert found.digest(form, None) == hashlib.sha256(canonical).digest()
        assert found.digest(form, limit) == hashlib.sha256(canonical[:limit]).digest()
    if len(body) <= 4096:
        alone = _body_hashes(limit, [body[at : at + 1] for at in range(len(body))])
        assert alone.digest("simple", limit) == found.digest("simple", limit)
        assert _BARE.search(body) or alone.digest("relaxed", limit) == found.digest("relaxed", limit)


@target
def header_hash(data: bytes) -> None:
    """Names as h= has them; the signing field; the header."""
    names_text, signature, block = _parts(data, 3)[:3]
    names = [name.strip().lower() for name in names_text.split(b":")]
    fields = parse_header(block).fields
    (own,) = parse_header(signature).fields[:1] or (Field("s", b" b=", b"S: b=\r\n"),)
    if _BARE.search(block) or _BARE.search(signature):
        return
    for form in ("simple", "relaxed"):
        policy = CanonicalizationPolicy.from_c_value(form.encode())
        found = header_digest(policy, fields, names, own.raw)
        assert found == _header_digest(form, fields, names, own.raw)


@target
def header(data: bytes) -> None:
    found = parse_header(data)
    assert found.end <= len(data) or data[:2] == b"\r\n"
    assert found.is_malformed or b"".join(field.raw for field in found.fields) + b"\r\n" == data[: found.end]
    at = 0
    for field in found.fields:
        at = data.index(field.raw, at) + len(field.raw)
        name, _, value = field.raw.partition(b":")
        assert name.rstrip(b" \t") == field.name.encode("ascii")
        assert value.rstrip(b"\r\n") == field.value.rstrip(b"\r\n")
        assert re.search(rb"\n[^ \t]", field.value) is None
        text = found.text(field.name)
        assert text is not None
        assert "\n" not in text or b"=?" in field.value
        address_of(field.value)
        mailboxes(field.value)
    again = parse_header(data + b"\r\n\r\nmore: 1\r\n")
    assert found.is_malformed or again == found
    whole = _header_names(data)
    assert whole is None or [field.name for field in found.fields] == whole


# --- cases ------------------------------------------------------------------------------------------------------------


def _grown(data: bytes) -> bytes:
    def longer(match: re.Match[bytes]) -> bytes:
        return match[1] * min(int(match[2]), MAX_GROWN // len(match[1]))

    return _GROWN.sub(longer, data, count=4)[:MAX_GROWN]


def _parts(data: bytes, least: int) -> list[bytes]:
    parts = data.split(_BETWEEN)
    return [b""] * (least - len(parts)) + parts


class Zone:
    """`core.ports.Resolver` over records `NAME TYPE VALUE`; a name `*` is each. TYPE may be FAILS or EXISTS."""

    def __init__(self, records: list[bytes]) -> None:
        self.asked: list[tuple[str, str]] = []
        self.believes = b"believe" in records
        self._records: dict[tuple[bytes, bytes], list[object]] = {}
        for record in records[:200]:
            name, _, rest = record.partition(b" ")
            kind, _, value = rest.partition(b" ")
            if (parsed := _record(kind, value)) is not None:
                self._records.setdefault((name.lower(), kind), []).append(parsed)

    async def lookup(self, name: str, rdtype: str) -> Answer:
        self.asked.append((name, rdtype))
        return self.answer(name, rdtype)

    def answer(self, name: str, rdtype: str) -> Answer:
        assert rdtype in ("MX", "A", "AAAA", "TXT", "PTR")
        for each in (name.encode("ascii").lower(), b"*"):
            if (each, b"FAILS") in self._records:
                return DnsFailure("timeout")
            if values := self._records.get((each, rdtype.encode())):
                return Records(tuple(values))
            if (each, b"EXISTS") in self._records:
                return NoData()
        return NoDomain()

    def for_dkimpy(self, name: bytes, timeout: int = 5) -> bytes | None:
        answer = self.answer(name.decode("ascii").rstrip("."), "TXT")
        return next((each for each in answer.values if _is_key(each)), None) if isinstance(answer, Records) else None


def _record(kind: bytes, value: bytes) -> object:
    """As a resolver would give it; None: it would not."""
    text = value.decode("ascii", "replace")
    if kind in (b"TXT", b"FAILS", b"EXISTS"):
        return value[:65_535]
    if not text.isprintable() or not text.isascii() or not text:
        return None
    if kind in (b"A", b"AAAA"):
        try:
            address = ip_address(text)
        except ValueError:
            return None
        return str(address) if address.version == (4 if kind == b"A" else 6) and "%" not in text else None
    if kind == b"MX":
        return (len(text), text.lower().rstrip("."))
    return text if kind == b"PTR" else None


def _rsa_der(*numbers: bytes) -> bytes:
    """A SubjectPublicKeyInfo of those integers, whatever they are (RFC 8017 A.1.1)."""

    def tlv(tag: int, content: bytes) -> bytes:
        size = len(content).to_bytes(3, "big").lstrip(b"\0") or b"\0"
        return bytes((tag,)) + (bytes((0x80 | len(size),)) if len(content) > 127 else b"") + size + content

    key = tlv(0x30, b"".join(tlv(0x02, number) for number in numbers))
    return tlv(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + tlv(0x03, b"\0" + key))


def _is_key(record: object) -> bool:
    try:
        return isinstance(record, bytes) and parse_key(record) is not None
    except KeyRefused:
        return False


def _zone_and_message(data: bytes) -> tuple[Zone, bytes]:
    *records, message = _parts(data, 1)
    body = message.partition(b"\r\n\r\n")[2]
    for word, canonical in ((b"@RELAXED@", _relaxed_body), (b"@SIMPLE@", _simple_body)):
        if word in message:
            message = message.replace(word, base64.b64encode(hashlib.sha256(canonical(body)).digest()))
    return Zone(records), message


def _told(lines: bytes) -> tuple[spf_room.SpfResult | None, tuple[dkim_room.DkimResult, ...]]:
    spf: spf_room.SpfResult | None = None
    signatures = []
    for line in lines.decode("ascii", "replace").splitlines()[:20]:
        kind, _, rest = line.partition(" ")
        word, _, name = rest.partition(" ")
        if _is_name(name):
            if kind == "spf" and word in spf_room.RESULTS:
                spf = spf_room.SpfResult(word, name, "mailfrom")
            if kind == "dkim" and word in dkim_room.RESULTS[1:]:
                signatures.append(dkim_room.DkimResult(word, name))
    return spf, tuple(signatures[: dkim_room.MAX_SIGNATURES])


def _client(line: bytes) -> tuple[str, str, str]:
    ip, _, rest = line.decode("utf-8", "replace").partition(" ")
    helo, _, sender = rest.partition(" ")
    try:
        ip = str(ip_address(ip.partition("%")[0]))
    except ValueError:
        ip = "192.0.2.1"
    try:
        helo = parse_helo(helo)
    except Exception:  # whatever it refuses
        helo = "mx.example.net"
    try:
        sender = str(parse_mailbox(sender))
    except ValueError:
        sender = ""
    return ip, helo, sender


_RUNNER = asyncio.Runner()
atexit.register(_RUNNER.close)


def _run(check: Coroutine[Any, Any, _T]) -> _T:
    return _RUNNER.run(check)


@contextmanager
def _believing(is_so: bool) -> Iterator[None]:
    """What comes after a signature that verifies is reached without the key."""
    kept = PublicKey.verifies
    if is_so:
        PublicKey.verifies = lambda self, signature, digest: True  # type: ignore[method-assign]
    try:
        yield
    finally:
        PublicKey.verifies = kept  # type: ignore[method-assign]


# --- what has to hold -------------------------------------------------------------------------------------------------

_SPF = spf_room.SpfResult("none", "", "mailfrom")
_DMARC, _ARC = dmarc_room.DmarcResult("none"), arc_room.ArcResult("none")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_QUOTED = r'"[ !#-\[\]-~]*"'
_RESULT = rf"[a-z]+=[a-z]+(?: \([ -'*-~]*\))?(?: reason={_QUOTED})?(?: [a-z]+\.[a-z]+=(?:{_TOKEN}|{_QUOTED}))*"
_FIELD = re.compile(rf"Authentication-Results: {re.escape(HOST)}(?:;\r\n\t{_RESULT})+\r\n")


def _check_field(found: Authentication) -> None:
    octets = results_field(HOST, found)
    assert _FIELD.fullmatch(octets.decode("ascii"))
    assert [field.raw for field in parse_header(octets + b"\r\n").fields] == [octets]


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_name(text: str) -> bool:
    """In A-labels."""
    try:
        found = parse_domain(text)
    except ValueError:
        return False
    return found.ascii == text and not found.is_literal


def _may_vouch(domain: str, author: str, mode: str) -> bool:
    return domain == author or (mode == "r" and domain.rpartition(".")[2] == author.rpartition(".")[2])


def _authors(value: bytes) -> set[str]:
    """The domains of the addresses that Python's `email` finds, as A-labels."""
    text = re.sub(r"\r\n(?=[ \t])", "", value.decode("utf-8", "replace"))
    if len(text) > 500 or _BARE.search(value.rstrip(b"\r\n")):
        return set()
    try:
        addresses = email.policy.default.header_factory("From", text.strip()).addresses
    except Exception:  # Python's own, on what it did not think of
        return set()
    found = set()
    for address in addresses:
        try:
            found.add(parse_domain(address.domain.rstrip(".")).ascii)
        except ValueError:
            continue
    return {name for name in found if "." in name}


def _simple_body(body: bytes) -> bytes:
    return b"\r\n".join(_without_empty_end(body.split(b"\r\n"))) + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    lines = _without_empty_end([re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")])
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


def _without_empty_end(lines: list[bytes]) -> list[bytes]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _body_hashes(limit: int, chunks: list[bytes]) -> BodyHashes:
    found = BodyHashes((form, bound) for form in ("simple", "relaxed") for bound in (None, limit))
    for chunk in chunks:
        found.feed(chunk)
    found.finish()
    return found


def _header_digest(form: str, fields: tuple[Field, ...], names: list[bytes], signature: bytes) -> bytes:
    """RFC 6376 3.4.1, 3.4.2, 3.5 (b=), 3.7, 5.4.2 to the letter."""
    left = list(fields)
    text = b""
    for name in names:
        at = next((at for at in reversed(range(len(left))) if left[at].name.lower().encode() == name), None)
        if at is not None:
            text += _canonical_field(form, left.pop(at).raw.removesuffix(b"\r\n")) + b"\r\n"
    name, colon, value = signature.removesuffix(b"\r\n").partition(b":")
    empty = re.sub(rb"(^|;)([ \t\r\n]*b[ \t\r\n]*=)[^;]*", rb"\1\2", value)
    return hashlib.sha256(text + _canonical_field(form, name + colon + empty)).digest()


def _canonical_field(form: str, field: bytes) -> bytes:
    if form == "simple":
        return field
    name, _, value = field.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b""))
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" ")


def _header_names(data: bytes) -> list[str] | None:
    """Of a header that has no flaw; None: it has."""
    block, blank, _ = data.partition(b"\r\n\r\n")
    lines = block.split(b"\r\n")
    if not blank or len(block) > 100_000 or _BARE.search(block):
        return None
    names = []
    for number, line in enumerate(lines):
        if line[:1] in (b" ", b"\t") and number:
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!-9;-~]+", name):
            return None
        names.append(name.decode("ascii"))
    return names


# --- careless readers of Authentication-Results -----------------------------------------------------------------------


def _readings(value: bytes) -> Iterator[tuple[str, str]]:
    """How, and what is taken for the authserv-id."""
    text = value.decode("utf-8", "replace").replace("\r\n", "")
    yield "that knows the grammar", _by_authres(text)
    for decoded, how in ((text, ""), (_decoded(value), ", decoding RFC 2047")):
        for name, without in _COMMENTS.items():
            yield name + how, _first_word(without(decoded))


def _by_authres(text: str) -> str:
    try:
        found = authres.AuthenticationResultsHeader(authres.all_features())
        found._parse_text = text
        return str(found._parse_authserv_id() or "")
    except Exception:  # its own and Python's
        return ""


def _decoded(value: bytes) -> str:
    message = email.message_from_bytes(b"Authentication-Results:" + value + b"\r\n\r\n", policy=email.policy.default)
    try:
        return str(message["Authentication-Results"])
    except Exception:  # Python's own, on what it did not think of
        return ""


def _nested(text: str, pairs: str) -> str:
    """Without comments that nest; pairs: what a backslash in them takes with it."""
    out, depth, at = [], 0, 0
    while at < len(text):
        if depth and text[at] == "\\" and pairs:
            at += 1
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")" and depth:
            depth -= 1
        elif not depth:
            out.append(text[at])
        at += 1
    return "".join(out)


_COMMENTS: dict[str, Callable[[str], str]] = {
    "without comments": lambda text: text,
    "of nested comments": lambda text: _nested(text, "\\"),
    "of nested comments without pairs": lambda text: _nested(text, ""),
    "of flat comments": lambda text: re.sub(r"\([^)]*\)", "", text),
    "of flat comments as blanks": lambda text: re.sub(r"\([^)]*\)", " ", text),
}


def _first_word(text: str) -> str:
    words = text.partition(";")[0].split()
    return words[0].strip('"') if words else ""


def _is_host(name: str) -> bool:
    try:
        return parse_domain(name.rstrip(".")).ascii == HOST
    except ValueError:
        return False
