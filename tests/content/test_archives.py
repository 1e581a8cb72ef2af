"""Members of archives, by libarchive and without it, within a budget."""

import bz2
import io
import lzma
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.content import archives
from gateway.content.archives import ArchiveError, Budget, LimitReached, Member, _by_python, members
from gateway.content.types import type_of
from tests.support.hostile import (
    EICAR,
    EXE,
    by_library,
    cab_of,
    encrypted_zip_of,
    office_of,
    packed,
    rar_of,
    seven_zip_of,
    tar_of,
    zip_of,
)

Reader = Callable[[bytes, str, Budget], Iterator[Member]]
FILES = {"a.txt": b"hello", "folder/b.bin": b"\0\1" * 5000, "ü日.txt": b"x"}
needs_library = pytest.mark.skipif(not archives.has_library(), reason="needs libarchive")


@pytest.fixture(
    params=[pytest.param(members, id="libarchive", marks=needs_library), pytest.param(_by_python, id="python")]
)
def read(request: pytest.FixtureRequest) -> Reader:
    return request.param  # type: ignore[no-any-return]


def read_all(read: Reader, octets: bytes, budget: Budget | None = None) -> list[Member]:
    return list(read(octets, type_of(octets), budget or Budget()))


def read_some(read: Reader, octets: bytes) -> list[Member]:
    """What comes before an error, and a broken or an encrypted member for the error."""
    found = []
    try:
        for member in read(octets, type_of(octets), Budget()):
            found.append(member)
    except ArchiveError as error:
        found.append(Member("error", None, is_encrypted=error.is_encrypted, is_broken=not error.is_encrypted))
    return found


def contents(found: list[Member]) -> dict[str, bytes | None]:
    return {member.name: member.octets for member in found}


def test_a_zip(read: Reader) -> None:
    assert contents(read_all(read, zip_of(FILES))) == FILES
    assert contents(read_all(read, zip_of(FILES, zipfile.ZIP_STORED))) == FILES


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_method(read: Reader, method: int) -> None:
    assert contents(read_all(read, zip_of(FILES, method))) == FILES


def test_a_tar_with_links(read: Reader) -> None:
    found = read_all(read, tar_of({"a": b"x"}, {"b": "/etc/passwd"}))
    assert contents(found) == {"a": b"x", "b": None}
    assert [member.is_link for member in found] == [False, True]


@pytest.mark.parametrize("pack", [packed, bz2.compress, lzma.compress])
def test_a_packed_file(read: Reader, pack: Callable[[bytes], bytes]) -> None:
    assert [member.octets for member in read_all(read, pack(b"hello" * 999))] == [b"hello" * 999]


@needs_library
@pytest.mark.parametrize("make", [seven_zip_of, cab_of, rar_of, lambda files: by_library("iso9660", files)])
def test_archives_that_need_the_library(make: Callable[[dict[str, bytes]], bytes]) -> None:
    found = contents(read_all(members, make({"a.txt": b"hello", "b.exe": EXE})))
    assert {name: octets for name, octets in found.items() if octets is not None} == {"a.txt": b"hello", "b.exe": EXE}


def test_without_the_library_other_archives_cannot_be_read() -> None:
    for octets in (rar_of(FILES), cab_of({"a": b"x"}), b"7z\xbc\xaf\x27\x1c\0\4"):
        with pytest.raises(ArchiveError):
            read_all(_by_python, octets)


def test_an_encrypted_member_is_told_by_name(read: Reader) -> None:
    assert read_some(read, encrypted_zip_of("a.exe", EXE))[0] == Member("a.exe", None, is_encrypted=True)


@needs_library
@pytest.mark.parametrize("method", ["aes256", "aes128", "zipcrypt"])
def test_encryption_of_zip(read: Reader, method: str) -> None:
    octets = by_library("zip", {"a.exe": EXE}, f"encryption={method}", "infected")
    assert read_some(read, octets)[0] == Member("a.exe", None, is_encrypted=True)


@pytest.mark.parametrize("octets", [packed(b"x" * 1000)[:15], b"BZh9" + b"\xff" * 50, b"\xfd7zXZ\0" + b"\xff" * 50])
def test_a_packed_file_that_is_broken_is_told(read: Reader, octets: bytes) -> None:
    assert any(member.is_broken for member in read_some(read, octets))


@needs_library
@pytest.mark.parametrize("magic", [b"7z\xbc\xaf\x27\x1c\0\4", b"Rar!\x1a\x07\x01\0", b"Rar!\x1a\x07\0", b"MSCF"])
def test_noise_behind_a_magic_is_told(magic: bytes) -> None:
    assert any(member.is_broken for member in read_some(members, magic + Random(5).randbytes(300)))


def test_octets_are_counted_as_they_come_out(read: Reader) -> None:
    octets = zip_of({"zeros": b"\0" * 2_000_000})
    assert len(octets) < 10_000
    with pytest.raises(LimitReached):
        read_all(read, octets, Budget(octets=1_000_000))
    budget = Budget()
    read_all(read, octets, budget)
    assert budget.octets == archives.MAX_OCTETS - 2_000_000


def test_one_member_is_no_larger_than_its_limit(read: Reader) -> None:
    with pytest.raises(LimitReached):
        read_all(read, packed(b"\0" * (archives.MAX_MEMBER + 1)))


def test_members_are_counted_over_all_archives(read: Reader) -> None:
    budget = Budget(members=5)
    octets = zip_of({str(number): b"" for number in range(3)})
    read_all(read, octets, budget)
    with pytest.raises(LimitReached):
        read_all(read, octets, budget)


def test_an_hour_that_has_passed_ends_the_reading(read: Reader) -> None:
    with pytest.raises(LimitReached):
        read_all(read, zip_of(FILES), Budget(until=0.0))


def test_a_wrong_checksum_leaves_the_octets_as_they_are(read: Reader) -> None:
    """Most unpackers write the file and complain."""
    octets = zip_of({"e.com": EICAR}).replace(struct.pack("<I", zlib.crc32(EICAR)), b"\0\0\0\0")
    (member,) = read_all(read, octets)
    assert member.is_broken
    assert member.octets in (None, EICAR)


@needs_library
def test_a_wrong_checksum_hides_nothing() -> None:
    octets = zip_of({"e.com": EICAR}).replace(struct.pack("<I", zlib.crc32(EICAR)), b"\0\0\0\0")
    assert [member.octets for member in read_all(members, octets)] == [EICAR]


@needs_library
@pytest.mark.parametrize("size", [1, 0x0FFFFFFF])
def test_a_declared_size_that_lies_hides_nothing(size: int) -> None:
    octets = zip_of({"e.com": EICAR}).replace(struct.pack("<I", len(EICAR)), struct.pack("<I", size))
    (member,) = read_all(members, octets)
    assert (member.octets or b"").startswith(EICAR)


@needs_library
@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o020644, 0o060644, 0o010644, 0o140644, 0])
def test_the_mode_of_unix_in_a_zip_hides_no_content(mode: int) -> None:
    """Windows does not look at it, and unpacks a file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("e.com", (2026, 1, 1, 0, 0, 0))
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, EICAR)
    assert EICAR in [member.octets for member in read_all(members, out.getvalue())]


@needs_library
@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_zips_one_behind_the_other_both_are_read_or_told(is_first: bool) -> None:
    one, two = zip_of({"a.txt": b"x"}), zip_of({"e.com": EICAR})
    octets = two + one if is_first else one + two
    found = read_some(members, octets)
    assert EICAR in [member.octets for member in found] or any(member.is_broken for member in found)


@needs_library
def test_a_false_end_of_a_zip_hides_nothing() -> None:
    octets = zip_of({"e.com": EICAR})
    octets = octets[:-2] + struct.pack("<H", 22) + b"PK\x05\x06" + b"\0" * 18
    found = read_some(members, octets)
    assert EICAR in [member.octets for member in found] or any(member.is_broken for member in found)


@needs_library
def test_a_zip_without_its_directory_is_read_from_the_front() -> None:
    octets = zip_of({"e.com": EICAR})
    assert EICAR in [member.octets for member in read_some(members, octets[: octets.index(b"PK\x01\x02")])]


@needs_library
def test_the_name_of_a_member_is_that_of_the_directory_and_of_its_own_header() -> None:
    """Windows shows the one, and what reads from the front takes the other."""
    octets = zip_of({"aaaa.txt": b"x"})
    at = octets.index(b"PK\x01\x02")
    found = read_all(members, octets[:at] + octets[at:].replace(b"aaaa.txt", b"aaaaa.js"))
    assert "aaaaa.js" in [member.name for member in found] or any(member.is_broken for member in found)


@needs_library
def test_reading_stops_at_a_fatal_error() -> None:
    """libarchive must not be asked for more then; with this cabinet it crashes."""
    start = (
        "4d5343460000000000000000000000002c000000000000000000010001000000000000003e00000001000000cc0000000000"
        "0000000000000000000061000000cc00cc00005a"
    )
    code = (
        "import sys; from gateway.content import archives\n"
        "try: list(archives.members(sys.stdin.buffer.read(), 'cab', archives.Budget()))\n"
        "except archives.ArchiveError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=bytes.fromhex(start).ljust(300, b"\0"), capture_output=True, check=False
    )
    assert done.returncode == 0


SAMPLES = [
    zip_of({"a.exe": EXE, "b": b"x" * 300}), office_of(), encrypted_zip_of("a", EXE), packed(b"x" * 100),
    tar_of({"a": b"x" * 300}, {"l": "x"}), bz2.compress(b"x" * 50), lzma.compress(b"x" * 50),
]  # fmt: skip


@given(st.sampled_from(SAMPLES), st.data())
def test_a_changed_archive_gives_members_or_an_error_without_the_library(octets: bytes, data: st.DataObject) -> None:
    check(_by_python, octets, data)


@needs_library
@given(st.sampled_from([*SAMPLES, rar_of({"a": b"x"})]), st.data())
def test_a_changed_archive_gives_members_or_an_error(octets: bytes, data: st.DataObject) -> None:
    check(members, octets, data)


def check(read: Reader, octets: bytes, data: st.DataObject) -> None:
    true_type = type_of(octets)
    changed = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    budget = Budget(octets=1_000_000)
    try:
        for member in read(bytes(changed) or b"x", true_type, budget):
            assert isinstance(member.name, str)
    except (ArchiveError, LimitReached):
        pass


@pytest.mark.parametrize("version", [99, 255])
def test_a_zip_of_a_version_to_come_is_an_error_without_the_library(version: int) -> None:
    octets = zip_of({"a": b"x"})
    at = octets.index(b"PK\x01\x02")
    with pytest.raises(ArchiveError):
        read_all(_by_python, octets[: at + 6] + bytes([version]) + octets[at + 7 :])


def test_a_zip_with_a_nameless_member_can_be_read(read: Reader) -> None:
    assert [member.octets for member in read_all(read, zip_of({"": b"x"}))] == [b"x"]
