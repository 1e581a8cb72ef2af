"""TLS contexts: for our listeners, from files that are reread when they change, and for the connections we make.

The server's certificate and key may be readable by root only: the supervisor reads them and hands the octets to its
children in an anonymous file, which it rewrites when the files change.
"""

import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from gateway.core.errors import ConfigError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate: Path
    key: Path
    minimum: str = "1.2"


class KeyMaterial:
    """Certificate and key as PEM octets in an anonymous file that children inherit. Made by the supervisor."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._seen: tuple[int, ...] = ()
        self._file = os.memfd_create("smarthost-tls", os.MFD_CLOEXEC)
        self.refresh()

    def refresh(self) -> bool:
        """Reread if a file changed and the pair fits; True when it was taken. Raises ConfigError at the first load
        only.
        """
        seen = tuple(_stamp(path) for path in (self._settings.certificate, self._settings.key))
        if seen == self._seen:
            return False
        first = not self._seen
        try:
            check_pair(self._settings)
            pem = self._settings.key.read_bytes() + b"\n" + self._settings.certificate.read_bytes()
        except (ConfigError, OSError):
            if first:
                raise
            return False  # half written: keep the old pair and look again
        self._seen = seen
        os.pwrite(self._file, pem, 0)
        os.ftruncate(self._file, len(pem))
        return True

    def version(self) -> int:
        return os.fstat(self._file).st_mtime_ns

    def pem(self) -> bytes:
        return os.pread(self._file, 1 << 20, 0)

    def expiry(self) -> float:
        """When the certificate ends, seconds since the epoch."""
        pem = self.pem()
        certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
        return certificate.not_valid_after_utc.timestamp()

    def minimum(self) -> ssl.TLSVersion:
        return _VERSIONS[self._settings.minimum]


class ServerContexts:
    """A child's current server context; made anew when the supervisor has taken a new pair."""

    def __init__(self, material: KeyMaterial) -> None:
        self._material = material
        self._version = 0
        self._context: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        version = self._material.version()
        if self._context is None or version != self._version:
            try:
                self._context = self._load()
                self._version = version
            except ssl.SSLError:
                if self._context is None:
                    raise
        return self._context

    def _load(self) -> ssl.SSLContext:
        # The ssl module loads a key from a path only, and after setuid /proc/self/fd is closed to us.
        with tempfile.NamedTemporaryFile(prefix="smarthost-tls-") as file:
            file.write(self._material.pem())
            file.flush()
            return _server_context(file.name, None, self._material.minimum())


def check_pair(settings: TlsSettings) -> None:
    """Raises ConfigError when certificate and key cannot serve."""
    try:
        _server_context(str(settings.certificate), str(settings.key), _VERSIONS[settings.minimum])
    except FileNotFoundError as error:
        raise ConfigError(f"tls: {error.filename or settings.certificate}: no such file") from error
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"tls: {settings.certificate} and {settings.key}: {error}") from error


def client_context(*, verify: bool, cafile: str | None = None) -> ssl.SSLContext:
    """For connections we make. Without verification (opportunistic TLS, RFC 7435) any certificate will do."""
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _server_context(certificate: str, key: str | None, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(certificate, key)
    return context


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
