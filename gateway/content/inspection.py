"""A message looked through: its parts decoded, its archives opened, all of it scanned. What comes out are facts.

Synchronous, and bounded in octets, members, depth and time whatever comes in. What cannot be looked at is told as a
fault or a trait, never passed over.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.content import archives, documents, names, types
from gateway.content.archives import ArchiveError, Budget, LimitReached
from gateway.content.attachment import Attachment, attachment_of
from gateway.message.loose import encoded_sections
from gateway.message.mime import AMBIGUOUS, Part, walk
from gateway.message.transfer import decode, decode_loose_base64, uuencoded_files

MAX_ATTACHMENTS = 200
MAX_MEMBERS_TOLD = 200  # names kept of one attachment
MAX_UU_FILES = 20
_DOCUMENT_PACKAGES = frozenset({"docx", "xlsx", "pptx", "ooxml"})

Scan = Callable[[bytes], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Findings:
    """faults: of mime.FAULTS; matches: names of signatures, each once."""

    attachments: tuple[Attachment, ...] = ()
    faults: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()

    @property
    def is_ambiguous(self) -> bool:
        """May mail programs see different messages in it?"""
        return bool(AMBIGUOUS.intersection(self.faults))

    def without_members(self) -> "Findings":
        return replace(self, attachments=tuple(replace(each, members=()) for each in self.attachments))


def to_json(findings: Findings) -> bytes:
    attachments = [each.told() for each in findings.attachments]
    told = {"attachments": attachments, "faults": findings.faults, "matches": findings.matches}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def from_json(octets: bytes) -> Findings:
    """Raises ValueError."""
    try:
        found = json.loads(octets)
        attachments = tuple(attachment_of(each) for each in found["attachments"])
        return Findings(attachments, tuple(found["faults"]), tuple(found["matches"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no findings: {error}") from error


def inspect(octets: bytes, scan: Scan = lambda octets: ()) -> Findings:
    """octets: a whole message."""
    return _Inspection(octets, scan).run()


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

    def run(self) -> Findings:
        self._scan(self.octets)
        structure = walk(self.octets)
        self.faults |= structure.faults
        if structure.faults & AMBIGUOUS:
            for section in encoded_sections(self.octets):
                self._scan(section)
        for part in structure.parts:
            if part.is_leaf:
                self._leaf(part)
        return Findings(tuple(self.attachments), tuple(sorted(self.faults)), tuple(self.matches))

    def _scan(self, octets: bytes) -> None:
        self.matches.update(dict.fromkeys(self.scan(octets)))

    def _leaf(self, part: Part) -> None:
        body = self.octets[part.start : part.end]
        content, is_right = decode(body, part.encoding)
        if part.media_type.startswith("multipart/") or self.faults & {"two_encodings", "unknown_encoding"}:
            self._scan(decode_loose_base64(body))
        if not is_right:
            self.faults.add("bad_encoding")
        self._scan(content)
        is_text = part.media_type in ("text/plain", "text/html") and not part.names
        if is_text and part.disposition.word != "attachment":
            for name, file in uuencoded_files(content, MAX_UU_FILES) if b"\nend" in content else ():
                self._scan(file)
                self._attachment((name.decode("utf-8", "replace"),), file, "application/octet-stream", part)
            # What a mail program saves or opens by its content rather than as the text it is called.
            if types.type_of(content) in ("text", "html", "empty", "email", "xml", "unknown"):
                return
        found = part.names
        if len(set(map(names.shown, found))) > 1:
            self.faults.add("two_names")
        if any(char < " " for name in found for char in name):
            self.faults.add("control_in_name")
        self._attachment(found, content, part.media_type, part)

    def _attachment(self, found: tuple[str, ...], content: bytes, media_type: str, part: Part) -> None:
        if len(self.attachments) >= MAX_ATTACHMENTS:
            self.faults.add("too_many_parts")
            return
        gathered = _Gathered()
        true_type = types.type_of(content)
        self._file(found, content, true_type, gathered, 0)
        self.attachments.append(
            Attachment(
                names.shown(found[0]) if found else "",
                names.extension_of(found),
                media_type,
                true_type,
                len(content),
                gathered.is_encrypted,
                gathered.has_macros,
                part.depth,
                tuple(gathered.members[:MAX_MEMBERS_TOLD]),
                tuple(gathered.extensions),
                tuple(gathered.types),
                tuple(sorted(gathered.traits)),
                part.number,
            )
        )

    def _file(self, found: Iterable[str], content: bytes, true_type: str, gathered: _Gathered, level: int) -> None:
        """One file, whether it is attached or in an archive."""
        extensions = [extension for name in found for extension in names.extensions_of(name)]
        gathered.extensions.update(dict.fromkeys(extensions))
        gathered.types[true_type] = None
        for name in found:
            gathered.traits.update(dict.fromkeys(names.traits_of(name)))
        if true_type in types.RUNNABLE and extensions and not any(each in names.RUNNABLE for each in extensions):
            gathered.traits["type_mismatch"] = None
        gathered.is_encrypted |= documents.is_encrypted(content, true_type)
        gathered.has_macros |= documents.has_macros(content, true_type)
        gathered.traits.update(dict.fromkeys(documents.traits_of(content, true_type)))
        if true_type in types.ARCHIVES:
            self._archive(content, true_type, gathered, level)
        elif true_type == "email":
            self._email(content, gathered, level)
        elif behind := types.appended_zip(content):
            gathered.traits["hidden_archive"] = None
            gathered.types["zip"] = None
            self._archive(behind, "zip", gathered, level)

    def _archive(self, content: bytes, true_type: str, gathered: _Gathered, level: int) -> None:
        if level >= archives.MAX_LEVELS:
            gathered.traits["archive_limits"] = None
            return
        try:
            for member in archives.members(content, true_type, self.budget):
                self._member(member, true_type in _DOCUMENT_PACKAGES, gathered, level)
        except LimitReached:
            gathered.traits["archive_limits"] = None
        except ArchiveError as error:
            if error.is_encrypted:
                gathered.is_encrypted = True
            else:
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
        if in_document:
            self._document_member(member, gathered)
            return
        if len(gathered.members) < MAX_MEMBERS_TOLD and not path.endswith("/") and path != archives.UNNAMED:
            gathered.members.append(names.shown(path))
        if member.octets is None:
            gathered.extensions.update(dict.fromkeys(names.extensions_of(path)))
            return
        self._file((path,), member.octets, types.type_of(member.octets), gathered, level + 1)

    def _document_member(self, member: archives.Member, gathered: _Gathered) -> None:
        """The files of an Office package are its own affair but for what acts."""
        if documents.is_macro_member(member.name):
            gathered.has_macros = True
        if documents.is_object_member(member.name):
            gathered.traits["embedded_object"] = None
        if member.octets is None:
            return
        gathered.traits.update(dict.fromkeys(documents.package_traits(member.name, member.octets)))
        inner = types.type_of(member.octets)
        if inner in types.RUNNABLE:
            gathered.types[inner] = None

    def _email(self, content: bytes, gathered: _Gathered, level: int) -> None:
        """A message as a file: what it holds counts as held by the file."""
        if level >= archives.MAX_LEVELS:
            gathered.traits["archive_limits"] = None
            return
        text = content if b"\r\n" in content else content.replace(b"\n", b"\r\n")
        for part in walk(text, is_fragment=True).parts:
            if not part.is_leaf:
                continue
            inner, _ = decode(text[part.start : part.end], part.encoding)
            self._scan(inner)
            if part.names:
                gathered.members.append(names.shown(part.names[0]))
                self._file(part.names, inner, types.type_of(inner), gathered, level + 1)
