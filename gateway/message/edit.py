"""Edits of a header block: the octets of what is not touched stay as they came."""

from gateway.message.header import Header


def without(block: bytes, raws: tuple[bytes, ...]) -> bytes:
    """The header block without these fields, whole as they stand in it, in its order."""
    kept = []
    at = 0
    for raw in raws:
        place = at if block.startswith(raw, at) else block.index(b"\n" + raw, at) + 1
        kept.append(block[at:place])
        at = place + len(raw)
    return b"".join(kept) + block[at:]


def missing_tags(header: Header, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Each tag once, without those that the subject begins with already, in whatever order."""
    field = header.first("Subject")
    rest = b"" if field is None else field.value.lstrip()
    left = list(dict.fromkeys(tags))
    while (found := next((tag for tag in left if rest.startswith(tag.encode("ascii"))), None)) is not None:
        left.remove(found)
        rest = rest[len(found) :].lstrip()
    return tuple(left)


def tag_subject(block: bytes, header: Header, tag: str) -> bytes:
    """The header block, its blank line included, with `tag` before the subject; without a Subject one is made.

    block: the octets up to `header.end`. A subject that begins with the tag already is left alone.
    """
    field = header.first("Subject")
    octets = tag.encode("ascii")
    if field is None:
        return b"Subject: " + octets + b"\r\n" + block
    if field.value.lstrip().startswith(octets):
        return block
    place = 0 if block.startswith(field.raw) else block.find(b"\n" + field.raw) + 1
    name_end = place + field.raw.index(b":") + 1
    rest = block[name_end:]
    gap = b"" if rest[:1] in (b" ", b"\t") else b" "
    return block[:name_end] + b" " + octets + gap + rest
