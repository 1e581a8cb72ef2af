"""What is known of one attachment: values that rules read as `a.extension` and the like."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MAX_NAME = 255  # characters

# What a name or a content may show, as rules see it in `a.traits`.
TRAITS = (
    "double_extension",  # invoice.pdf.exe
    "reversed_name",  # a right-to-left override turns the end of the name round
    "blank_name",  # many blanks hide the end of the name
    "type_mismatch",  # what it is called is harmless, what it is can be run
    "html_smuggling",  # a page that makes a file by script
    "script",  # a page or document with a script in it
    "external_template",  # an Office file that loads its template, with macros, from elsewhere
    "embedded_object",  # an OLE package or object in an Office or RTF file
    "dde",  # an Office field that starts a program
    "autorun",  # macros that run when the file is opened
    "launch",  # a PDF that starts a program or opens a file
    "archive_limits",  # an archive with more, or deeper, than is looked at
    "archive_broken",  # an archive that cannot be read to its end
    "path_traversal",  # a member whose name leads out of the folder it is unpacked in
    "link_inside",  # a member that is a link
    "hidden_archive",  # an archive behind something else
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """name: as shown, "" for none; extension: in lower case, without a dot, that of the worse name if there are two;
    media_type: declared; true_type: by content, of types.TYPES; size: octets, decoded; depth: how many messages and
    multiparts it is in; members: names of the files in it, however deep; extensions, types: its own and those of all
    that is in it; traits: of TRAITS; part: the number of the part that it is, or is in (RFC 3501 6.4.5).
    """

    name: str = ""
    extension: str = ""
    media_type: str = "application/octet-stream"
    true_type: str = "unknown"
    size: int = 0
    is_encrypted: bool = False
    has_macros: bool = False
    depth: int = 0
    members: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    part: str = ""

    def told(self) -> dict[str, object]:
        """For records: what is not as by default."""
        return {name: value for name in _DEFAULTS if (value := getattr(self, name)) != _DEFAULTS[name]}


_DEFAULTS = {each.name: each.default for each in fields(Attachment)}


def attachment_of(values: Mapping[str, Any]) -> Attachment:
    """From its fields by name, as a record or a test has them. Raises TypeError for a field that there is not."""
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Attachment(**found)
