"""A message looked through: its parts decoded, its archives opened, all of it scanned. What comes out are facts.

Synchronous, and bounded in octets, members, depth and time whatever comes in. What cannot be looked at is told as a
fault or a trait, never passed over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.content import archives, documents, names, types
from gateway.content.archives import ArchiveError, Budget, LimitReached
from gateway.content.attachment import Attachment, attachment_of
from gateway.message.header import Field
from gateway.message.loose import encoded_sections
from gateway.message.mime import AMBIGUOUS, ENCODINGS, Part, Structure, walk
from gateway.message.transfer import decode, decode_loose_base64, uuencoded_files

MAX_ATTACHMENTS = 200
MAX_MEMBERS_TOLD = 200  # names kept of one attachment
MAX_EXTENSIONS_TOLD = 200
MAX_UU_FILES = 20
_DOCUMENT_PACKAGES = frozenset({"docx", "xlsx", "pptx", "ooxml", "odf"})
_ZIPS = frozenset({"zip", "jar", "apk", "epub", *_DOCUMENT_PACKAGES})
_MAY_BE_EMPTY = frozenset({"tar", *_ZIPS})
_UU = frozenset({"x-uuencode", "uuencode", "x-uue"})
_ENVELOPED = b"\x01\x07\x03"  # the end of PKCS #7's object identifier of enveloped data
_TEXTS = frozenset({"text", "html", "svg", "empty", "email", "xml", "unknown", "pgp"})

Scan = Callable[[bytes], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Findings:
    """faults: of mime.FAULTS; matches: names of signatures, each once; is_partial: the engine has given up on some."""

    attachments: tuple[Attachment, ...] = ()
    faults: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    is_partial: bool = False

    @property
    def is_ambiguous(self) -> bool:
        """May mail programs see different messages in it?"""
        return bool(AMBIGUOUS.intersection(self.faults))

    def without_attachments(self) -> "Findings":
        """There are too many to be told."""
        return replace(self, attachments=(), faults=tuple(sorted({*self.faults, "too_many_parts"})), is_partial=True)

    def without_members(self) -> "Findings":
        return replace(self, attachments=tuple(replace(each, members=()) for each in self.attachments))


def told(findings: Findings) -> dict[str, object]:
    """For JSON."""
    attachments = [each.told() for each in findings.attachments]
    return {
        "attachments": attachments, "faults": findings.faults, "matches": findings.matches,
        "partial": findings.is_partial,
    }  # fmt: skip


def findings_of(values: Mapping[str, Any]) -> Findings:
    """What `told` gave. Raises KeyError, TypeError."""
    attachments = tuple(attachment_of(each) for each in values["attachments"])
    return Findings(attachments, tuple(values["faults"]), tuple(values["matches"]), bool(values["partial"]))


def inspect(octets: bytes, scan: Scan = lambda octets: ()) -> Findings:
    """octets: a whole message."""
    return inspect_parts(octets, walk(octets), scan)


def inspect_parts(octets: bytes, structure: Structure, scan: Scan) -> Findings:
    """The same, of a message that has been walked."""
    return _Inspection(octets, scan).run(structure)


def named_attachment(**known: Any) -> Attachment:
    """For tests of policies: what follows from the fields that are known is worked out."""
    name, members = known.get("name", ""), known.get("members", ())
    found = [extension for each in (name, *members) for extension in names.extensions_of(each)]
    implied: dict[str, Any] = {
        "extension": names.extension_of((name,)),
        "extensions": tuple(dict.fromkeys([*([known["extension"]] if "extension" in known else []), *found])),
        "types": (known["true_type"],) if "true_type" in known else (),
        "traits": tuple(dict.fromkeys(trait for each in (name, *members) for trait in names.traits_of(each))),
    }
    return Attachment(**(implied | known))


@dataclass(slots=True)
class _Gathered:
    """What an attachment and all that is in it show."""

    members: list[str] = field(default_factory=list)
    extensions: dict[str, None] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    traits: dict[str, None] = field(default_factory=dict)
    is_encrypted: bool = False
    has_macros: bool = False


class _Inspection:
    def __init__(self, octets: bytes, scan: Scan) -> None:
        self.octets = octets
        self.scan = scan
        self.budget = Budget()
        self.attachments: list[Attachment] = []
        self.faults: set[str] = set()
        self.matches: dict[str, None] = {}
        self.is_partial = False

    def run(self, structure: Structure) -> Findings:
        self._scan(self.octets)
        self.faults |= structure.faults
        if structure.faults & AMBIGUOUS:
            for section in encoded_sections(self.octets):
                self._scan(section)
        for part in structure.parts:
            if part.is_leaf:
                self._leaf(part)
            elif part.is_message and part.names:
                self._attachment(part.names, self.octets[part.start : part.end], part)
        return Findings(tuple(self.attachments), tuple(sorted(self.faults)), tuple(self.matches), self.is_partial)

    def _scan(self, octets: bytes) -> None:
        try:
            self.matches.update(dict.fromkeys(self.scan(octets)))
        except Exception:
            self.is_partial = True  # the engine has given it up: others may know

    def _leaf(self, part: Part) -> None:
        content = self._decoded(self.octets, part)
        self._scan(content)
        if part.media_type.startswith("multipart/") and part.encoding in ENCODINGS:
            content = (
                b"".join(field.raw for field in part.header.fields[:50] if _is_content_type(field)) + b"\r\n" + content
            )
        if _is_shown(part, content):
            for name, file in uuencoded_files(content, MAX_UU_FILES):
                self._scan(file)
                self._attachment((name.decode("utf-8", "replace"),), file, part)
            return
        found = part.names or _given_names(self.octets, part)
        if len(set(map(names.shown, found))) > 1:
            self.faults.add("two_names")
        if any(char < " " for name in found for char in name):
            self.faults.add("control_in_name")
        self._attachment(found, content, part)

    def _decoded(self, octets: bytes, part: Part) -> bytes:
        body = octets[part.start : part.end]
        content, is_right = decode(body, part.encoding)
        if not is_right:
            self.faults.add("bad_encoding")
        if part.media_type.startswith("multipart/") or self.faults & {"two_encodings", "unknown_encoding"}:
            self._scan(decode_loose_base64(body))
        return content

    def _attachment(self, found: tuple[str, ...], content: bytes, part: Part) -> None:
        if len(self.attachments) >= MAX_ATTACHMENTS:
            self.faults.add("too_many_parts")
            return
        gathered = _Gathered()
        true_type = _type_in(part, content)
        self._file(found, content, true_type, gathered, 0)
        implied = names.BY_MEDIA_TYPE.get(part.media_type, "")
        if implied and not found:
            gathered.extensions[implied] = None
        self.attachments.append(
            Attachment(
                names.shown(found[0]) if found else "",
                names.extension_of(found) or implied,
                part.media_type,
                true_type,
                len(content),
                gathered.is_encrypted,
                gathered.has_macros,
                part.depth,
                tuple(gathered.members[:MAX_MEMBERS_TOLD]),
                self._told_extensions(gathered),
                tuple(gathered.types),
                tuple(sorted(gathered.traits)),
                part.number,
            )
        )

    @staticmethod
    def _told_extensions(gathered: _Gathered) -> tuple[str, ...]:
        """Those that can be run before all others, when there are too many."""
        found = tuple(gathered.extensions)
        if len(found) > MAX_EXTENSIONS_TOLD:
            gathered.traits["archive_limits"] = None
            found = tuple(sorted(found, key=lambda extension: not names.runs(extension))[:MAX_EXTENSIONS_TOLD])
        return found

    def _file(self, found: tuple[str, ...], content: bytes, true_type: str, gathered: _Gathered, level: int) -> None:
        """One file, whether it is attached or in an archive."""
        extensions = [extension for name in found for extension in names.extensions_of(name)]
        gathered.extensions.update(dict.fromkeys(extensions))
        gathered.types[true_type] = None
        for name in found:
            gathered.traits.update(dict.fromkeys(names.traits_of(name)))
        if true_type in types.RUNNABLE and any(each in names.HARMLESS for each in extensions):
            gathered.traits["type_mismatch"] = None
        gathered.is_encrypted |= documents.is_encrypted(content, true_type)
        gathered.has_macros |= documents.has_macros(content, true_type)
        gathered.traits.update(dict.fromkeys(documents.traits_of(content, true_type)))
        if true_type in types.ARCHIVES:
            self._archive(content, true_type, gathered, level, found)
        elif true_type == "pkcs7":
            self._envelope(content, gathered, level)
        elif true_type == "email" or any(each in ("eml", "mht", "mhtml") for each in extensions):
            self._email(content, gathered, level)
        if types.hides_archive(content):
            gathered.traits["hidden_archive"] = None
        if (true_type not in _ZIPS) and (behind := types.appended_zip(content)):
            gathered.traits["hidden_archive"] = None
            gathered.types["zip"] = None
            self._archive(behind, "zip", gathered, level, ())

    def _archive(self, content: bytes, true_type: str, gathered: _Gathered, level: int, found: tuple[str, ...]) -> None:
        if level >= archives.MAX_LEVELS:
            gathered.traits["archive_limits"] = None
            return
        is_empty = True
        try:
            for member in archives.members(content, true_type, self.budget):
                is_empty = False
                if member.name == archives.UNNAMED and member.octets is not None:
                    self._scan(member.octets)
                    self._file(_unpacked(found), member.octets, types.type_of(member.octets), gathered, level + 1)
                else:
                    self._member(member, true_type in _DOCUMENT_PACKAGES, gathered, level)
        except LimitReached:
            gathered.traits["archive_limits"] = None
        except ArchiveError as error:
            if error.is_encrypted:
                gathered.is_encrypted = True
            else:
                gathered.traits["archive_broken"] = None
        else:
            if is_empty and true_type not in _MAY_BE_EMPTY:
                gathered.traits["archive_broken"] = None

    def _member(self, member: archives.Member, in_document: bool, gathered: _Gathered, level: int) -> None:
        gathered.is_encrypted |= member.is_encrypted
        if member.is_link:
            gathered.traits["link_inside"] = None
        if member.is_broken:
            gathered.traits["archive_broken"] = None
        path = member.name.replace("\\", "/")
        if path.startswith("/") or ".." in path.split("/") or path[1:3] == ":/":
            gathered.traits["path_traversal"] = None
        if member.octets is not None:
            self._scan(member.octets)
        if in_document and documents.is_own_member(path):
            self._own_member(member, gathered, level)
            return
        if in_document and documents.is_macro_member(path):
            gathered.has_macros = True
        if in_document and documents.is_object_member(path):
            gathered.traits["embedded_object"] = None
        if len(gathered.members) < MAX_MEMBERS_TOLD and path and not path.endswith("/"):
            gathered.members.append(names.shown(path))
        if member.octets is None:
            gathered.extensions.update(dict.fromkeys(names.extensions_of(path)))
            return
        self._file((path,), member.octets, types.type_of(member.octets), gathered, level + 1)

    def _own_member(self, member: archives.Member, gathered: _Gathered, level: int) -> None:
        """What every Office package has: of no interest but for what acts."""
        if documents.is_macro_member(member.name):
            gathered.has_macros = True
        if documents.is_object_member(member.name):
            gathered.traits["embedded_object"] = None
        if member.octets is None:
            return
        gathered.traits.update(dict.fromkeys(documents.package_traits(member.name, member.octets)))
        inner = types.type_of(member.octets)
        if inner in types.RUNNABLE or inner in types.ARCHIVES or inner in documents.OLE_TYPES:
            self._file((), member.octets, inner, gathered, level + 1)

    def _envelope(self, content: bytes, gathered: _Gathered, level: int) -> None:
        """S/MIME: a signed message stands in its octets (RFC 8551 3.5.2), an enveloped one nobody can read."""
        if content[2:20].find(_ENVELOPED) >= 0:
            gathered.is_encrypted = True
        start = content.lower().find(b"content-type:")
        if start >= 0:
            self._email(content[start:], gathered, level)

    def _email(self, content: bytes, gathered: _Gathered, level: int) -> None:
        """A message as a file: what it holds counts as held by the file."""
        if level >= archives.MAX_LEVELS:
            gathered.traits["archive_limits"] = None
            return
        text = b"\r\n".join(content.replace(b"\r\n", b"\n").split(b"\n"))
        if text.startswith(b"From "):
            text = text.partition(b"\r\n")[2]  # a line of an mbox
        structure = walk(text, is_fragment=True)
        self.faults |= structure.faults & AMBIGUOUS
        for part in structure.parts:
            if not part.is_leaf or (part.number == "" and part.media_type.startswith("multipart/")):
                continue
            inner = self._decoded(text, part)
            self._scan(inner)
            if _is_shown(part, inner):
                files = [(name.decode("utf-8", "replace"), file) for name, file in uuencoded_files(inner, MAX_UU_FILES)]
                for name, file in files:
                    self._scan(file)
                    self._held((name,), file, types.type_of(file), gathered, level)
            else:
                self._held(part.names, inner, _type_in(part, inner), gathered, level)

    def _held(self, found: tuple[str, ...], content: bytes, true_type: str, gathered: _Gathered, level: int) -> None:
        """A file in a message that is a file."""
        if found and len(gathered.members) < MAX_MEMBERS_TOLD:
            gathered.members.append(names.shown(found[0]))
        self._file(found, content, true_type, gathered, level + 1)


def _is_shown(part: Part, content: bytes) -> bool:
    """A text of the message itself, as every mail program shows it."""
    if part.media_type not in ("text/plain", "text/html") or part.names or part.encoding in _UU:
        return False
    if part.disposition.word == "attachment":
        return False
    return types.is_plain_text(content[:1024]) or types.type_of(content) in _TEXTS


def _is_content_type(field: Field) -> bool:
    return field.name.lower() == "content-type"


def _type_in(part: Part, content: bytes) -> str:
    """By content; but what is declared a message is read as one."""
    found = types.type_of(content)
    is_message = part.media_type.startswith(("message/rfc822", "message/global", "multipart/"))
    return "email" if is_message and found in _TEXTS else found


def _given_names(octets: bytes, part: Part) -> tuple[str, ...]:
    """What a uuencoded part calls itself."""
    if part.encoding in _UU:
        files = uuencoded_files(octets[part.start : part.end], 1)
        return tuple(name.decode("utf-8", "replace") for name, _ in files)
    return ()


def _unpacked(found: tuple[str, ...]) -> tuple[str, ...]:
    """What unpacks invoice.js.gz makes invoice.js of it."""
    return tuple(name.rpartition(".")[0] for name in found if "." in name)
