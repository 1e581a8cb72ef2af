"""Real mail software for tests to talk to: Postfix, Exim, smtp-sink, msmtp, swaks, curl and fetchmail.

Every peer runs from files of its own in a temporary folder, on a high port of the loopback address, and is ended
by its process id. Nothing reads or writes the system's own configuration, queue or log.

A `ca_file` always means the same: with it the peer's certificate must verify against it, without it any
certificate is taken.
"""

import base64
import contextlib
import itertools
import os
import pwd
import re
import shutil
import smtplib
import stat
import tempfile
import textwrap
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from .process import LOOPBACK, Daemon, Finished, find_command, free_port, missing, run, wait_until

Security = Literal["none", "starttls", "implicit"]
RelaySecurity = Literal["none", "may", "starttls", "implicit"]

_POSTFIX_PROGRAMS = ("/usr/lib/postfix/sbin", "/usr/libexec/postfix")
_POSTFIX_MAIL = ("active", "corrupt", "deferred", "hold", "incoming", "saved")
_POSTFIX_STATE = ("bounce", "defer", "flush", "private", "trace")
_EXIM_USER = "Debian-exim"
_TRACE_FIELDS = frozenset({b"received", b"return-path", b"delivered-to", b"authentication-results"})
_SINK_TRACE = re.compile(rb"Received: from .*\n\tby .*\n\t.*\n")


# ---------------------------------------------------------------------------------------------------------------
# What is there


def postfix_missing() -> str | None:
    """Return why a test with `Postfix` must be skipped, or None."""
    reason = missing("postfix", root=True)
    if reason is None and _postfix_daemons() is None:
        reason = "Postfix's daemons were not found"
    return reason


def sink_missing() -> str | None:
    """Return why a test with `SmtpSink` must be skipped, or None."""
    return missing("smtp-sink")


def exim_missing() -> str | None:
    """Return why a test with `Exim` must be skipped, or None."""
    reason = missing(root=True)
    if reason is not None:
        return reason
    if not _exim_program().exists():
        return "Exim is not unpacked (run tests/install-peers as root)"
    try:
        pwd.getpwnam(_EXIM_USER)
    except KeyError:
        return f"the account {_EXIM_USER} is missing (run tests/install-peers as root)"
    return None


def _postfix_daemons() -> str | None:
    """Return the folder of Postfix's own programs."""
    return next((folder for folder in _POSTFIX_PROGRAMS if Path(folder, "master").exists()), None)


def peers_cache() -> Path:
    """Return where install-peers unpacks what it cannot install."""
    ours = Path(__file__).resolve().parents[2] / ".cache" / "peers"
    return Path(os.environ.get("SMARTHOST_PEERS") or ours)


def _exim_program() -> Path:
    return peers_cache() / "exim" / "usr" / "sbin" / "exim4"


# ---------------------------------------------------------------------------------------------------------------
# Messages


def submit(
    port: int,
    reverse_path: str,
    recipients: Sequence[str],
    message: bytes,
    *,
    host: str = LOOPBACK,
    helo: str = "client.test",
    options: Sequence[str] = (),
    timeout: float = 30.0,
) -> str:
    """Send one CRLF message by plain SMTP and return the text of the server's last reply; any refusal raises.

    `options` are parameters of MAIL such as `SMTPUTF8` or `BODY=8BITMIME`. A refused recipient raises
    `smtplib.SMTPRecipientsRefused` even when others are taken.
    """
    with smtplib.SMTP(host, port, local_hostname=helo, timeout=timeout) as client:
        client.ehlo_or_helo_if_needed()
        code, text = client.mail(reverse_path, options)
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, text, reverse_path)
        for recipient in recipients:
            code, text = client.rcpt(recipient)
            if code not in (250, 251):
                raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})
        code, text = client.data(message)
        if code != 250:
            raise smtplib.SMTPDataError(code, text)
        return text.decode("utf-8", "replace")


def added_trace(sent: bytes, received: bytes, *, released: bool = False) -> list[bytes]:
    """Return the whole trace fields that stand in `received` before the very octets of `sent`.

    Fails when anything else was added, or when one octet of the message was changed, and shows where. released: it was
    kept, and one more field says so.
    """
    if not received.endswith(sent):
        pairs = zip(reversed(sent), reversed(received), strict=False)
        equal = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        ends = {"sent": len(sent) - equal, "received": len(received) - equal}
        raise AssertionError(
            f"the message was changed: its last {equal} of {len(sent)} octets are equal\n"
            f"sent     ...{sent[max(0, ends['sent'] - 120) : ends['sent'] + 40]!r}\n"
            f"received ...{received[max(0, ends['received'] - 120) : ends['received'] + 40]!r}"
        )
    before = received[: len(received) - len(sent)]
    fields = re.findall(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", before)
    assert b"".join(fields) == before, f"not header fields: {before!r}"
    if released:
        (mark,) = (field for field in fields if field.startswith(b"X-Smarthost-Released: "))
        fields.remove(mark)
    for field in fields:
        assert field.partition(b":")[0].lower() in _TRACE_FIELDS, f"not a trace field: {field!r}"
    return fields


# ---------------------------------------------------------------------------------------------------------------
# Mail servers that relay


def _open_folder(name: str) -> Path:
    """Make a folder that accounts other than root can enter, which pytest's own temporary folders are not."""
    for place in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):
        if all(folder.stat().st_mode & stat.S_IXOTH for folder in (place, *place.parents)):
            made = Path(tempfile.mkdtemp(prefix=f"smarthost-{name}-", dir=place))
            made.chmod(0o755)
            return made
    raise RuntimeError("no temporary folder that other accounts can enter")


def _own(path: Path, account: str, group: str, mode: int) -> None:
    """Make a folder with this owner, group and mode."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.chown(path, account, group)
    path.chmod(mode)


class Mta(ABC):
    """A real mail server that takes mail on `port` and relays all of it to one host and port.

    As a context manager it starts, and at the end stops and removes its files. `stop` alone keeps the queue, so
    that `start` goes on with it. The log stays readable after the end.
    """

    name: str

    def __init__(self, tmp: Path, relayhost: tuple[str, int], hostname: str, port: int | None) -> None:
        """Make the server's own folder."""
        self.relayhost = relayhost
        self.hostname = hostname
        self.port = free_port() if port is None else port
        self.folder = _open_folder(self.name)
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        tmp.mkdir(parents=True, exist_ok=True)
        self._kept_log = tmp / f"{self.name}-{self.port}.log"
        self._daemon: Daemon | None = None

    @abstractmethod
    def _make_daemon(self) -> Daemon:
        """Say how the server is started."""

    @abstractmethod
    def queue_ids(self) -> set[str]:
        """Return the identifiers of the messages in the queue, incoming ones included."""

    @abstractmethod
    def flush(self) -> None:
        """Make the server try all deferred mail now."""

    @abstractmethod
    def _log_files(self) -> list[Path]:
        """Return the log files of the server."""

    def start(self) -> Self:
        """Start the server and wait until it greets."""
        if self._daemon is None:
            self._daemon = self._make_daemon()
        self._daemon.start()
        return self

    def stop(self) -> None:
        """Stop the server and all its processes; its queue stays."""
        daemon = self._daemon
        if daemon is not None:
            daemon.stop()
            wait_until(daemon.session_is_empty, 10.0, f"all processes of {self.name} to end")
        if self.folder.exists():
            self._kept_log.write_text(self._read_log(), encoding="utf-8")

    def close(self) -> None:
        """Stop the server and remove its folder; its log is kept in the folder that was passed in."""
        try:
            self.stop()
        finally:
            self._remove()

    @property
    def pid(self) -> int:
        """The process id of the server's master process."""
        if self._daemon is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._daemon.pid

    def sendmail(
        self,
        reverse_path: str,
        recipients: Sequence[str],
        message: bytes,
        *,
        options: Sequence[str] = (),
        timeout: float = 30.0,
    ) -> str:
        """Hand one CRLF message to the server over SMTP and return its last reply's text, which names its id."""
        return submit(self.port, reverse_path, recipients, message, options=options, timeout=timeout)

    def queue_length(self) -> int:
        """Return how many messages are in the queue."""
        return len(self.queue_ids())

    def wait_empty(self, timeout: float = 30.0) -> None:
        """Wait until the queue is empty; on failure show the end of the log."""
        try:
            wait_until(lambda: self.queue_length() == 0, timeout, f"the queue of {self.name} to become empty")
        except AssertionError as error:
            shown = "\n".join(self.log().splitlines()[-40:])
            raise AssertionError(f"{error}: {self.queue_length()} left; its log ends with:\n{shown}") from None

    def log(self) -> str:
        """Return the server's log, also after its end."""
        if self.folder.exists():
            return self._read_log()
        return self._kept_log.read_text(encoding="utf-8") if self._kept_log.exists() else ""

    def wait_log(self, text: str, timeout: float = 15.0) -> None:
        """Wait until a text stands in the log."""
        wait_until(lambda: text in self.log(), timeout, f"{text!r} in the log of {self.name}")

    def _read_log(self) -> str:
        """Return the present text of all log files."""
        found = [path for path in self._log_files() if path.exists()]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in found)

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and remove its files."""
        self.close()


class Postfix(Mta):
    """A private Postfix. It needs root, for its master process is started as root and gives its rights away.

    Deferred mail is tried again every second or two. Notices of non-delivery are relayed like any mail, as in
    real life. `extra_main` overrides any setting of main.cf; `extra_master` is added to master.cf.
    """

    name = "postfix"

    def __init__(
        self,
        tmp: Path,
        relayhost: tuple[str, int],
        *,
        hostname: str = "postfix.test",
        port: int | None = None,
        security: RelaySecurity = "none",
        ca_file: Path | None = None,
        tls_name: str | None = None,
        auth: tuple[str, str] | None = None,
        auth_mechanisms: str | None = None,
        extra_main: Mapping[str, str] | None = None,
        extra_master: str = "",
    ) -> None:
        """Write the configuration. `tls_name` is the name to find in the relay's certificate (needs `ca_file`);
        `auth` is a user and a password for the relay, `auth_mechanisms` filters them, as in "plain, login".
        """
        daemons = _postfix_daemons()
        if daemons is None:
            raise RuntimeError("Postfix's daemons were not found")
        super().__init__(tmp, relayhost, hostname, port)
        self._daemons = daemons
        self._config = self.folder / "config"
        self._queue = self.folder / "queue"
        self._maillog = self.folder / "maillog"
        self._lay_out_folders()
        main = self._main()
        main.update(_postfix_tls(security, ca_file, tls_name))
        if auth is not None:
            main.update(self._auth(auth, auth_mechanisms))
        main.update(extra_main or {})
        text = "".join(f"{key} = {value}\n" for key, value in main.items())
        (self._config / "main.cf").write_text(text, encoding="utf-8")
        (self._config / "master.cf").write_text(
            f"{LOOPBACK}:{self.port} inet n - n - - smtpd\n{_MASTER_CF}{extra_master}", encoding="utf-8"
        )

        for file in self._config.iterdir():
            # Postfix reads a settings file again and again, and so starts seconds later, until it is not brand new.
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 60))

    def _lay_out_folders(self) -> None:
        """Make the queue as Postfix's own script would make it."""
        _own(self._config, "root", "root", 0o755)
        _own(self.folder / "data", "postfix", "postfix", 0o700)
        _own(self._queue, "root", "root", 0o755)
        for name in _POSTFIX_MAIL + _POSTFIX_STATE:
            _own(self._queue / name, "postfix", "root", 0o700)
        _own(self._queue / "pid", "root", "root", 0o755)
        _own(self._queue / "maildrop", "postfix", "postdrop", 0o730)
        _own(self._queue / "public", "postfix", "postdrop", 0o710)

    def _main(self) -> dict[str, str]:
        """Return the settings that every instance has; most of them keep Postfix from changing a message."""
        host, port = self.relayhost
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self._queue),
            "data_directory": str(self.folder / "data"),
            "daemon_directory": self._daemons,
            "maillog_file": str(self._maillog),
            "maillog_file_prefixes": str(self.folder),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": self.hostname,
            "myorigin": "$myhostname",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": LOOPBACK,
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "local_transport": f"smtp:[{host}]:{port}",
            "relayhost": f"[{host}]:{port}",
            "biff": "no",
            # nothing asks a name server
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "smtpd_peername_lookup": "no",
            # the message stays as it is
            "local_header_rewrite_clients": "",
            "remote_header_rewrite_domain": "",
            "message_drop_headers": "",
            "disable_mime_output_conversion": "yes",
            "smtp_line_length_limit": "0",
            "line_length_limit": "65536",
            "header_size_limit": "10000000",
            "smtp_pix_workarounds": "",
            "message_size_limit": "0",
            "mailbox_size_limit": "0",
            "queue_minfree": "0",
            # quick
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": "",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "smtpd_error_sleep_time": "0",
            "in_flow_delay": "0",
            "queue_run_delay": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "2s",
            "transport_retry_time": "1s",
            "smtp_tls_loglevel": "1",
        }

    def _auth(self, auth: tuple[str, str], mechanisms: str | None) -> dict[str, str]:
        """Write the password file and return the settings that use it."""
        host, port = self.relayhost
        passwords = self._config / "passwords"
        passwords.touch(mode=0o600)
        passwords.write_text(f"[{host}]:{port} {auth[0]}:{auth[1]}\n", encoding="utf-8")
        settings = {
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"texthash:{passwords}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_tls_security_options": "noanonymous",
        }
        if mechanisms is not None:
            settings["smtp_sasl_mechanism_filter"] = mechanisms
        return settings

    def _make_daemon(self) -> Daemon:
        """Start the master in the foreground (-d), as leader of a group that its SIGTERM then ends."""
        return Daemon(
            [Path(self._daemons, "master"), "-d", "-c", self._config],
            log=self._maillog,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "MAIL_CONFIG": str(self._config)},
            cwd=self.folder,
            ready_port=(LOOPBACK, self.port),
        )

    def queue_ids(self) -> set[str]:
        """Return the identifiers of the messages in the queue, incoming ones included.

        A file may move while the folders are read; `active` is read twice so that none is overlooked.
        """
        ids: set[str] = set()
        for name in ("maildrop", "incoming", "active", "deferred", "active", "hold"):
            for _, _, files in os.walk(self._queue / name):
                ids.update(files)
        return ids

    def flush(self) -> None:
        """Make the queue manager try all deferred mail now."""
        run([find_command("postqueue") or "postqueue", "-c", self._config, "-f"]).expect()

    def _log_files(self) -> list[Path]:
        """Return the one log."""
        return [self._maillog]


_MASTER_CF = """\
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def _postfix_tls(security: RelaySecurity, ca_file: Path | None, name: str | None) -> dict[str, str]:
    """Return the settings for the connection to the relay."""
    settings: dict[str, str] = {}
    if security in ("none", "may"):
        settings["smtp_tls_security_level"] = security
    elif ca_file is None:
        settings["smtp_tls_security_level"] = "encrypt"
    else:
        settings["smtp_tls_security_level"] = "secure"
        settings["smtp_tls_secure_cert_match"] = name or "nexthop"
    if security == "implicit":
        settings["smtp_tls_wrappermode"] = "yes"
    if ca_file is not None:
        settings["smtp_tls_CAfile"] = str(ca_file.resolve())
    return settings


class Exim(Mta):
    """A private Exim, unpacked by install-peers, run wholly under its package's own account (root starts it).

    Deferred mail is tried again every second or two. `extra_main` is added to the main section, `extra_transport`
    to the options of the transport to the relay.
    """

    name = "exim"

    def __init__(
        self,
        tmp: Path,
        relayhost: tuple[str, int],
        *,
        hostname: str = "exim.test",
        port: int | None = None,
        security: RelaySecurity = "none",
        ca_file: Path | None = None,
        auth: tuple[str, str] | None = None,
        chunking: bool = True,
        extra_main: str = "",
        extra_transport: str = "",
    ) -> None:
        """Write the configuration. With `ca_file` the relay's certificate must verify and name the relay's host;
        `chunking` lets Exim use BDAT where it is offered; `auth` is a user and a password (PLAIN).
        """
        super().__init__(tmp, relayhost, hostname, port)
        self._spool = self.folder / "spool"
        self._logs = self.folder / "log"
        self._config = self.folder / "exim.conf"
        self._program = self.folder / "exim4"
        _own(self._spool, _EXIM_USER, _EXIM_USER, 0o750)
        _own(self._logs, _EXIM_USER, _EXIM_USER, 0o750)
        shutil.copyfile(_exim_program(), self._program)  # the cache may stand where its account cannot look
        self._program.chmod(0o755)
        transport = ["hosts_try_chunking = *" if chunking else "hosts_try_chunking ="]
        transport += self._tls(security, ca_file)
        if auth is not None:
            transport.append("hosts_require_auth = *")
        if extra_transport:
            transport.append(extra_transport)
        host, relay_port = relayhost
        text = _EXIM_CONF.format(
            hostname=hostname,
            program=self._program,
            spool=self._spool,
            logs=self._logs,
            port=self.port,
            host=host,
            relay_port=relay_port,
            extra_main=extra_main,
            transport=textwrap.indent("\n".join(transport), "  "),
            authenticator=_exim_authenticator(auth),
        )
        self._config.write_text(text, encoding="utf-8")
        shutil.chown(self._config, _EXIM_USER, _EXIM_USER)
        self._config.chmod(0o600)  # it may hold a password

    def _tls(self, security: RelaySecurity, ca_file: Path | None) -> list[str]:
        """Return the transport's options for the connection to the relay."""
        if security == "none":
            return ["hosts_avoid_tls = *"]
        options = []
        if ca_file is None:
            options += ["tls_verify_hosts =", "tls_try_verify_hosts ="]
        else:
            own_copy = self.folder / "ca.pem"
            shutil.copyfile(ca_file, own_copy)
            own_copy.chmod(0o644)
            options += [f"tls_verify_certificates = {own_copy}", "tls_verify_hosts = *"]
        if security != "may":
            options.append("hosts_require_tls = *")
        if security == "implicit":
            options.append("protocol = smtps")
        return options

    def _command(self, *words: str) -> list[str]:
        """Return the command line of this Exim with these words."""
        return [str(self._program), "-C", str(self._config), *words]

    def _make_daemon(self) -> Daemon:
        """Start the daemon in the foreground, with a queue run each second."""
        return Daemon(
            self._command("-bdf", "-q1s"),
            log=self.folder / "output",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            cwd=self._spool,
            user=_EXIM_USER,
            ready_port=(LOOPBACK, self.port),
        )

    def queue_ids(self) -> set[str]:
        """Return the identifiers of the messages in the queue, incoming ones included."""
        found: set[str] = set()
        for _, _, files in os.walk(self._spool / "input"):
            found.update(name[:-2] for name in files if name.endswith(("-D", "-H")))
        return found

    def flush(self) -> None:
        """Run the queue once, with frozen and not yet due messages, and wait for the run's end."""
        once = Daemon(self._command("-qff"), log=self.folder / "output", user=_EXIM_USER, cwd=self._spool)
        with contextlib.suppress(AssertionError):  # a run that is over before it is looked at is no failure
            once.start()
        once.wait(60.0)

    def _log_files(self) -> list[Path]:
        """Return the main log, the log of refusals and that of panics, and what it printed."""
        return [self._logs / name for name in ("mainlog", "rejectlog", "paniclog")] + [self.folder / "output"]


_EXIM_CONF = """\
primary_hostname = {hostname}
exim_path = {program}
spool_directory = {spool}
log_file_path = {logs}/%slog
pid_file_path = {spool}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
disable_ipv6 = true
deliver_drop_privilege = true
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
helo_accept_junk_hosts = *
smtp_enforce_sync = false
accept_8bitmime = true
allow_utf8_domains = true
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
smtp_accept_max_nonmail = 1000
message_size_limit = 0
header_maxsize = 10M
return_path_remove = false
delivery_date_remove = false
envelope_to_remove = false
bounce_return_message = true
ignore_bounce_errors_after = 1d
timeout_frozen_after = 1d
retry_interval_max = 2s
tls_advertise_hosts =
acl_smtp_rcpt = accept
acl_smtp_data = accept
log_selector = +smtp_confirmation +received_recipients +tls_certificate_verified
{extra_main}

begin routers
all:
  driver = manualroute
  route_list = * "{host}::{relay_port}" byname
  self = send
  transport = relay

begin transports
relay:
  driver = smtp
  allow_localhost
  message_linelength_limit = 100000000
  dnssec_request_domains =
  hosts_try_dane =
{transport}

begin retry
* * F,1h,1s

begin authenticators
{authenticator}
"""


def _exim_authenticator(auth: tuple[str, str] | None) -> str:
    """Return the section that logs in to the relay."""
    if auth is None:
        return ""
    if any(word.startswith("^") for word in auth):
        raise ValueError("Exim cannot send a name or password that begins with a circumflex")
    # A circumflex stands for NUL and two for itself; Base64 keeps all else from being taken for a list or a variable.
    user, password = (base64.b64encode(word.replace("^", "^^").encode()).decode() for word in auth)
    send = f"^${{base64d::{user}}}^${{base64d::{password}}}"  # a list: its colons are doubled
    return f"plain:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = {send}"


# ---------------------------------------------------------------------------------------------------------------
# smtp-sink


@dataclass(frozen=True, slots=True)
class SunkMessage:
    """One message as smtp-sink captured it.

    `data` has the octets between DATA and the lone dot, with CRLF line ends and without the dot-stuffing. smtp-sink
    drops every bare CR and does not tell a bare LF from CRLF; all else is kept. `mail` and `recipients` have the
    arguments of MAIL and RCPT as sent, such as `<a@b.test> SIZE=9`.
    """

    client: str
    protocol: str
    helo: str | None
    mail: str
    recipients: tuple[str, ...]
    data: bytes
    path: Path

    @property
    def reverse_path(self) -> str:
        """The path of MAIL without its angle brackets and parameters."""
        return _path_of(self.mail)

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """The paths of RCPT without their angle brackets and parameters."""
        return tuple(_path_of(argument) for argument in self.recipients)


def _path_of(argument: str) -> str:
    """Return what stands between the angle brackets of an SMTP argument."""
    inside = argument.strip().partition("<")[2]
    return inside.rpartition(">")[0] if inside else argument.strip()


class SmtpSink:
    """Postfix's smtp-sink: a server that takes all mail and keeps each message in a file. It needs no root.

    `soft`, `hard`, `drop` and `shut` name commands ("RCPT", "DATA", ".", "CONNECT", ...) that get a 4xx reply, a 5xx
    reply, a closed connection without a reply, or a 421 reply and a closed connection. `soft_reply` and `hard_reply`
    are the whole reply lines for that. `delay` is a command and the seconds to wait before its reply. `restart`
    brings it back on the same port, with other refusals if wanted.

    It announces AUTH PLAIN LOGIN and takes any password, but says 250 where 235 is due, which only Postfix takes for
    a yes; `auth=False` hides it. It knows neither STARTTLS nor SMTPUTF8. A message that it refused, or dropped, only
    at "." is captured all the same.
    """

    def __init__(
        self,
        tmp: Path,
        *,
        hostname: str = "sink.test",
        port: int | None = None,
        soft: Sequence[str] = (),
        hard: Sequence[str] = (),
        drop: Sequence[str] = (),
        shut: Sequence[str] = (),
        soft_reply: str | None = None,
        hard_reply: str | None = None,
        delay: tuple[str, int] | None = None,
        eightbit: bool = True,
        pipelining: bool = True,
        esmtp: bool = True,
        auth: bool = True,
        dsn: bool = True,
        enhanced_codes: bool = True,
        max_connections: int = 256,
        extra: Sequence[str] = (),
    ) -> None:
        """Note what to refuse and what not to announce; `extra` are further options of smtp-sink."""
        self.port = free_port() if port is None else port
        self.folder = tmp / f"sink-{self.port}"
        self._captures = self.folder / "captures"
        options = ["-h", hostname, "-m", str(max_connections), "-v", *extra]
        for wanted, flag in ((eightbit, "-8"), (pipelining, "-p"), (esmtp, "-e"), (auth, "-a"), (dsn, "-N")):
            options += [] if wanted else [flag]
        options += [] if enhanced_codes else ["-E"]
        for reply, flag in ((soft_reply, "-b"), (hard_reply, "-B")):
            options += [] if reply is None else [flag, reply]
        options += [] if delay is None else ["-W", f"{delay[0]}:{delay[1]}"]
        self._options = options
        self._refusals = _sink_refusals(soft, hard, drop, shut)
        self._daemon: Daemon | None = None

    def start(self) -> Self:
        """Start the server and wait until it accepts connections."""
        self._captures.mkdir(parents=True, exist_ok=True)
        options = [*self._options, *self._refusals]
        if os.geteuid() == 0:
            # Its file names are relative, so the account need not be able to walk down to the folder.
            options += ["-u", "nobody"]
            shutil.chown(self._captures, "nobody")
        self._daemon = Daemon(
            [find_command("smtp-sink") or "smtp-sink", *options, "-d", "m.", f"{LOOPBACK}:{self.port}", "128"],
            log=self.folder / "log",
            cwd=self._captures,
            ready_port=(LOOPBACK, self.port),
        )
        self._daemon.start()
        return self

    def stop(self) -> None:
        """Stop the server; what it captured stays."""
        if self._daemon is not None:
            self._daemon.stop()

    def restart(
        self,
        *,
        soft: Sequence[str] = (),
        hard: Sequence[str] = (),
        drop: Sequence[str] = (),
        shut: Sequence[str] = (),
    ) -> Self:
        """Stop the server if it runs and start it on the same port with these refusals; captures stay."""
        self.stop()
        self._refusals = _sink_refusals(soft, hard, drop, shut)
        return self.start()

    def messages(self) -> list[SunkMessage]:
        """Return the whole messages captured so far, oldest first; one that is still coming in is left out."""
        closed: list[tuple[int, Path]] = []
        found = list(self._captures.iterdir()) if self._captures.exists() else []
        still_open = self._open_files()  # looked at after the listing: a listed file not in it is complete
        for path in found:
            if path.name not in still_open:
                with contextlib.suppress(FileNotFoundError):  # a broken-off transaction's file is removed
                    closed.append((path.stat().st_mtime_ns, path))
        return [_read_capture(path) for _, path in sorted(closed)]

    def wait_messages(self, count: int, timeout: float = 30.0) -> list[SunkMessage]:
        """Wait until at least so many messages are captured and return all of them."""
        try:
            wait_until(lambda: self._enough(count), timeout, f"{count} messages in the sink")
        except AssertionError as error:
            raise AssertionError(f"{error}: it has {len(self.messages())}") from None
        return self.messages()

    def clear(self) -> None:
        """Forget the messages captured so far."""
        for message in self.messages():
            message.path.unlink()

    def log(self) -> str:
        """Return the commands that the server got, one a line, between notes of its own."""
        return self._daemon.log_text() if self._daemon is not None else ""

    def _enough(self, count: int) -> bool:
        """Tell whether so many messages are captured, looking closer only when there are enough files."""
        files = len(list(self._captures.iterdir())) if self._captures.exists() else 0
        return files >= count and len(self.messages()) >= count

    def _open_files(self) -> set[str]:
        """Return the names of the capture files that the server holds open."""
        if self._daemon is None or not self._daemon.running():
            return set()
        names = set()
        with contextlib.suppress(FileNotFoundError):
            for handle in Path("/proc", str(self._daemon.pid), "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    names.add(handle.readlink().name)
        return names

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()


def _sink_refusals(soft: Sequence[str], hard: Sequence[str], drop: Sequence[str], shut: Sequence[str]) -> list[str]:
    """Return the options that name commands to refuse."""
    options: list[str] = []
    for flag, commands in (("-r", soft), ("-f", hard), ("-q", drop), ("-Q", shut)):
        if commands:
            options += [flag, ",".join(commands)]
    return options


def _read_capture(path: Path) -> SunkMessage:
    """Read one capture file of smtp-sink."""
    content = path.read_bytes()
    end_of_record = _SINK_TRACE.search(content)
    if end_of_record is None or not content.endswith(b"\n"):
        raise AssertionError(f"not a capture of smtp-sink: {path.name}: {content[:300]!r}")
    record: dict[str, list[str]] = {}
    for line in content[: end_of_record.start()].decode("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition(": ")
        record.setdefault(key, []).append(value)
    return SunkMessage(
        client=record["X-Client-Addr"][0],
        protocol=record["X-Client-Proto"][0],
        helo=record.get("X-Helo-Args", [None])[0],
        mail=record["X-Mail-Args"][0],
        recipients=tuple(record.get("X-Rcpt-Args", ())),
        data=content[end_of_record.end() : -1].replace(b"\n", b"\r\n"),  # the sink ends each file with an empty line
        path=path,
    )


# ---------------------------------------------------------------------------------------------------------------
# Mail programs for one message


def _environment(home: Path) -> dict[str, str]:
    """Return an environment in which no settings of the caller's own are found."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8", "SWAKS_HOME": str(home), "FETCHMAILHOME": str(home)}


def _new_folder(tmp: Path, name: str) -> Path:
    """Make a new private folder below the one that was passed in."""
    tmp.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=tmp))


def _write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, as programs demand of a file with passwords."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _quoted(text: str) -> str:
    """Return a word in double quotes for a settings file; one that would break out of them is refused."""
    if set('"\\\r\n') & set(text):
        raise ValueError(f"cannot be quoted: {text!r}")
    return f'"{text}"'


def msmtp_send(
    tmp: Path,
    port: int,
    reverse_path: str,
    recipients: Sequence[str],
    message: bytes,
    *,
    host: str = LOOPBACK,
    security: Security = "none",
    ca_file: Path | None = None,
    auth: tuple[str, str] | None = None,
    mechanism: str = "plain",
    helo: str = "msmtp.test",
    extra: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Finished:
    """Send one message with msmtp; code 0 when the server took it for all recipients.

    msmtp ends every line with CRLF by itself, so the message is given to it with LF. `extra` are more settings.
    """
    folder = _new_folder(tmp, "msmtp")
    settings = {
        "host": host,
        "port": str(port),
        "from": reverse_path,
        "domain": helo,
        "timeout": str(max(1, int(timeout))),
        "set_from_header": "off",
        "set_date_header": "off",
        "set_msgid_header": "off",
        "remove_bcc_headers": "off",
        "undisclosed_recipients": "off",
        "tls": "off" if security == "none" else "on",
        "tls_starttls": "on" if security == "starttls" else "off",
        "auth": "off",
    }
    if auth is not None:
        settings.update({"auth": mechanism.lower(), "user": _quoted(auth[0]), "password": _quoted(auth[1])})
    if ca_file is not None:
        settings["tls_trust_file"] = _quoted(str(ca_file))
    elif security != "none":
        settings["tls_certcheck"] = "off"
    settings.update(extra or {})
    lines = ["account default", *(f"{key} {value}" for key, value in settings.items())]
    config = _write_private(folder / "msmtprc", "\n".join(lines) + "\n")
    return run(
        ["msmtp", "--debug", "-C", config, "--", *recipients],
        data=message.replace(b"\r\n", b"\n"),
        timeout=timeout,
        env=_environment(folder),
    )


def swaks(
    tmp: Path,
    port: int,
    reverse_path: str,
    recipients: Sequence[str],
    message: bytes,
    *,
    host: str = LOOPBACK,
    security: Security = "none",
    ca_file: Path | None = None,
    auth: tuple[str, str] | None = None,
    mechanism: str = "PLAIN",
    helo: str = "swaks.test",
    extra: Sequence[str] = (),
    timeout: float = 30.0,
) -> Finished:
    """Send one CRLF message, octet for octet, with swaks; its standard output is the whole conversation.

    `extra` are more options, such as `["--quit-after", "RCPT"]`. Some codes: 0 sent, 24 no recipient taken,
    26 data refused, 28 login failed, 29 TLS failed.
    """
    folder = _new_folder(tmp, "swaks")
    data = folder / "data"
    stuffed = re.sub(rb"(?m)^\.", b"..", message)
    data.write_bytes(
        stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b"."
    )  # swaks itself ends the last line
    argv: list[str | os.PathLike[str]] = ["swaks", "--server", host, "--port", str(port), "--helo", helo]
    argv += ["--from", reverse_path or "<>", "--to", ",".join(recipients), "--timeout", str(max(1, int(timeout)))]
    argv += ["--data", f"@{data}", "--no-data-fixup"]
    argv += {"none": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[security]
    if ca_file is not None:
        argv += ["--tls-verify", "--tls-ca-path", ca_file]
    if auth is not None:
        argv += ["--auth", mechanism, "--auth-user", auth[0], "--auth-password", auth[1]]
    return run([*argv, *extra], timeout=timeout + 5.0, env=_environment(folder))


def curl_send(
    tmp: Path,
    port: int,
    reverse_path: str,
    recipients: Sequence[str],
    message: bytes,
    *,
    host: str = LOOPBACK,
    security: Security = "none",
    ca_file: Path | None = None,
    auth: tuple[str, str] | None = None,
    mechanism: str | None = None,
    helo: str = "curl.test",
    extra: Sequence[str] = (),
    timeout: float = 30.0,
) -> Finished:
    """Send one CRLF message with curl; its standard error is the whole conversation.

    Some codes: 0 sent, 8 or 55 refused, 60 certificate not trusted, 64 no TLS, 67 login failed.
    """
    folder = _new_folder(tmp, "curl")
    data = folder / "data"
    data.write_bytes(message)
    scheme = "smtps" if security == "implicit" else "smtp"
    argv: list[str | os.PathLike[str]] = ["curl", "-q", "--silent", "--show-error", "--verbose"]
    argv += ["--max-time", f"{timeout:g}", "--url", f"{scheme}://{host}:{port}/{helo}", "--noproxy", "*"]
    argv += ["--mail-from", reverse_path, "--upload-file", data]
    for recipient in recipients:
        argv += ["--mail-rcpt", recipient]
    if security == "starttls":
        argv.append("--ssl-reqd")
    argv += ["--cacert", ca_file] if ca_file is not None else ["--insecure"]
    if auth is not None:
        argv += ["--user", f"{auth[0]}:{auth[1]}"]
    if mechanism is not None:
        argv += ["--login-options", f"AUTH={mechanism}"]
    return run([*argv, *extra], timeout=timeout + 5.0, env=_environment(folder))


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run of fetchmail gave: how it ended and the messages it took, oldest first, with CRLF line ends."""

    result: Finished
    messages: tuple[bytes, ...]


def fetchmail_pop3(
    tmp: Path,
    port: int,
    user: str,
    password: str,
    *,
    host: str = LOOPBACK,
    security: Security = "none",
    ca_file: Path | None = None,
    keep: bool = False,
    auth: str = "password",
    extra: str = "",
    timeout: float = 60.0,
) -> Fetched:
    """Take all mail of a POP3 mailbox with fetchmail, and delete it there unless `keep`.

    Some codes: 0 mail taken, 1 no mail, 2 no connection or no TLS, 3 login failed, 4 protocol error. `extra` are
    more options of the user in fetchmail's own language.
    """
    folder = _new_folder(tmp, "fetchmail")
    mail = folder / "mail"
    mail.mkdir()
    # The script gets one message on its standard input each time, and fetchmail runs one at a time.
    script = folder / "store.sh"
    script.write_text('set -e\nn=$(ls | wc -l)\ncat > "$(printf %06d "$n")"\n', encoding="utf-8")
    # Without "ssl", an sslproto other than '' makes fetchmail demand STLS.
    tls = {"none": "sslproto ''", "starttls": "sslproto 'TLS1.2+'", "implicit": "ssl sslproto 'TLS1.2+'"}[security]
    if security != "none":
        tls += " no sslcertck" if ca_file is None else f" sslcertck sslcertfile {_quoted(str(ca_file))}"
    text = f"""\
set no syslog
set no bouncemail
set no spambounce
set invisible
set idfile {_quoted(str(folder / "ids"))}
set pidfile {_quoted(str(folder / "pid"))}
poll {_quoted(host)} protocol pop3 service {port} timeout {max(1, int(timeout))} no dns auth {auth}
  user {_quoted(user)} password {_quoted(password)} {tls}
  fetchall {"keep" if keep else "no keep"} no rewrite no mimedecode pass8bits {extra}
  mda {_quoted(f"/bin/sh {script}")}
"""
    config = _write_private(folder / "fetchmailrc", text)
    result = run(
        ["fetchmail", "--verbose", "--nodetach", "--fetchmailrc", config],
        timeout=timeout,
        env=_environment(folder),
        cwd=mail,
    )
    stored = [path.read_bytes() for path in sorted(mail.iterdir())]
    return Fetched(result, tuple(re.sub(rb"\r?\n", b"\r\n", message) for message in stored))
