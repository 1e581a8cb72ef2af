"""Files that the tour sends: harmless, and each shaped like what a gateway must know."""

import io
import zipfile

# Put together here, so that no scanner takes this file for one.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-" + b"STANDARD-ANTIVIRUS-TEST-FILE!" + b"$H+H*"
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
_ENCRYPTED = 1  # bit 0 of the flags, in a member's own header and in the directory
_OWN_FLAGS, _DIRECTORY_FLAGS = 6, 8  # where they stand there


def zipped(**files: bytes) -> bytes:
    """Names with `__` for a dot and `_slash_` for a slash."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items():
            archive.writestr(name.replace("_slash_", "/").replace("__", "."), octets)
    return out.getvalue()


def locked_zip() -> bytes:
    """An archive that says of its one file that it is under a password."""
    octets = bytearray(zipped(invoice__pdf=b"%PDF-1.4 nothing to see"))
    octets[_OWN_FLAGS] |= _ENCRYPTED
    octets[octets.index(b"PK\x01\x02") + _DIRECTORY_FLAGS] |= _ENCRYPTED
    return bytes(octets)


def document_with_macros() -> bytes:
    return zipped(
        word_slash_document__xml=b"<w:document/>",
        word_slash_vbaProject__bin=b"Sub AutoOpen()",
        _rels_slash___rels=b"<Relationships/>",
    )
