"""Records as zone files have them (RFC 1035 5.1)."""

_PART = 200  # octets of a character string, of 255 that it may have: a line that can be read


def quoted(text: str) -> str:
    """A TXT record's text, in as many character strings as it takes."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return " ".join(f'"{text[at : at + _PART]}"' for at in range(0, len(text), _PART))
