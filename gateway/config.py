"""smarthost.toml: every key with its default, read strictly; errors name the key's path.

`SMARTHOST_SECTION__KEY` in the environment overrides a key (lists separated by commas). Relative paths count from the
file's folder. Nothing below `app` imports this: rooms get their own settings.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.checks.clamd import parse_clamd
from gateway.checks.engines import parse_engine
from gateway.core.address import parse_domain
from gateway.core.errors import ConfigError
from gateway.net.listener import parse_address, parse_listen_address

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d|w)?")
_TIME_OF_DAY = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,250}(?:/[\w./~-]{0,200})?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*(?:([KMGT])i?)?B?", re.IGNORECASE)
_POWERS = {None: 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_duration(value: object) -> float:
    """Seconds from `90`, `"90s"`, `"5m"`, `"1h"`, `"5d"`."""
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no time: write 90, 90s, 5m, 2h or 5d")
    return float(match[1]) * _UNITS[match[2]]


def parse_size(value: object) -> int:
    """Octets from `1000`, `"50MB"` (1 MB is 1024 KB)."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no size: write 1000, 64KB, 50MB or 2GB")
    power = _POWERS[match[2].upper() if match[2] else None]
    return int(float(match[1]) * power) if "." in match[1] else int(match[1]) * power


def _address(value: str) -> str:
    parse_listen_address(value)
    return value


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def _source_address(value: str) -> str:
    return str(ip_address(value))


def _network(value: str) -> str:
    return str(ip_network(value))


def _host_name(value: str) -> str:
    domain = parse_domain(value)
    if domain.is_literal:
        raise ValueError("a name is wanted, not an address literal")
    return domain.ascii


def _relay_name(value: str) -> str:
    """A leading dot takes the subdomains too."""
    return ("." if value.startswith(".") else "") + _host_name(value.removeprefix("."))


def _name_server(value: str) -> str:
    """`192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353`, as `address:port` without brackets."""
    try:
        return f"{ip_address(value)}:53"
    except ValueError:
        host, port = parse_address(value)
    return f"{ip_address(host)}:{port}"


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=1_000_000)]
Port = Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=65535)]
Addresses = tuple[Annotated[str, AfterValidator(_address)], ...]
Networks = tuple[Annotated[str, AfterValidator(_network)], ...]
RouteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
HostName = Annotated[str, AfterValidator(_host_name)]
RelayName = Annotated[str, AfterValidator(_relay_name)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gateway(Section):
    hostname: HostName
    data: Path = Path("data")
    policies: Path = Path("policies")
    user: str = "smarthost"
    recipient_delimiter: Annotated[str, Field(max_length=1)] = "+"
    sender_specified_routing: tuple[HostName, ...] = ()
    workers: Annotated[int, Field(ge=0, le=12)] = 0  # SMTP processes; 0: one a core


class Listen(Section):
    smtp: Addresses = ()
    submission: Addresses = ()
    submissions: Addresses = ()
    pop3: Addresses = ()
    pop3s: Addresses = ()
    imap: Addresses = ()
    imaps: Addresses = ()
    lmtp: Addresses = ()
    web: Addresses = ()
    metrics: Annotated[str, AfterValidator(lambda value: value and _address(value))] = "127.0.0.1:9125"
    proxy_from: Networks = ()
    xclient_from: Networks = ()


class TlsFiles(Section):
    certificate: Path = Path("tls/cert.pem")
    key: Path = Path("tls/key.pem")
    minimum: Literal["1.2", "1.3"] = "1.2"


class NetworkSettings(Section):
    trusted: Networks = ("127.0.0.0/8", "::1/128")
    upstream: Networks = ()


class LocalDomain(Section):
    pass


class NextHop(Section):
    host: str = ""


class RelayDomain(NextHop):
    recipients: Literal["any", "probe"] = "any"  # probe: the next hop is asked which mailboxes there are


class Route(NextHop):
    username: str = ""
    password_file: Path | None = None
    auth: Literal["plain", "login"] = "plain"
    ca_file: Path | None = None  # whose certificates to believe; none: the system's


class Delivery(Section):
    port: Port = 25
    allow_private: bool = False
    source: tuple[Annotated[str, AfterValidator(_source_address)], ...] = ()
    concurrency: Count = 20  # connections to one destination
    connect_timeout: Duration = 30.0


class Forwarding(Section):
    """Of mail that an address here hands on elsewhere."""

    srs: bool = True  # its reverse-path is rewritten
    arc: bool = True  # it is sealed


class Dns(Section):
    servers: tuple[Annotated[str, AfterValidator(_name_server)], ...] = ()
    validating: bool = False


class Queue(Section):
    retry: Annotated[tuple[Duration, ...], Field(min_length=1)] = (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    expire: Duration = 432000.0
    warn_after: Duration = 14400.0


def _clamd(text: str) -> str:
    parse_clamd(text)
    return text


OnError = Literal["skip", "defer", "match"]


class CheckSettings(Section):
    timeout: Duration = 10.0
    on_error: OnError = "skip"


class GreylistCheck(CheckSettings):
    delay: Duration = 300.0
    keep: Duration = 36 * 86400.0


class EarlyTalkerCheck(CheckSettings):
    delay: Annotated[Duration, Field(le=30)] = 2.0


class SeenCheck(CheckSettings):
    keep: Duration = 180 * 86400.0


class ReputationCheck(CheckSettings):
    timeout: Duration = 20.0
    half_life: Duration = 30 * 86400.0


class UsageCheck(CheckSettings):
    """auth.usual: recipients an hour; factor: of the busiest hour within keep."""

    floor: Count = 100
    factor: Annotated[float, Field(ge=1, le=100)] = 3.0
    keep: Duration = 28 * 86400.0


class RecipientsCheck(CheckSettings):
    on_error: OnError = "defer"
    keep_existing: Duration = 86400.0
    keep_missing: Duration = 3600.0


class ContentCheck(CheckSettings):
    """What is in a message: attachments, its structure."""

    timeout: Duration = 45.0
    on_error: OnError = "defer"


def _clamds(value: object) -> object:
    """One address or several; "" for none."""
    return ([value] if value else []) if isinstance(value, str) else value


class AntivirusCheck(CheckSettings):
    timeout: Duration = 20.0
    on_error: OnError = "defer"
    clamd: Annotated[tuple[Annotated[str, AfterValidator(_clamd)], ...], BeforeValidator(_clamds)] = ()
    yara: str | None = None


def _engine(text: str) -> str:
    parse_engine(text)
    return text


class SpamCheck(CheckSettings):
    """keep: how long what people teach the filter counts; engine_timeout: of one outside of this program."""

    timeout: Duration = 45.0
    engines: Annotated[tuple[Annotated[str, AfterValidator(_engine)], ...], Field(min_length=1)] = ("bayes",)
    engine_timeout: Duration = 10.0
    rspamd_password_file: Path | None = None
    keep: Duration = 365 * 86400.0
    learn_from_junk: bool = True  # what users move into Junk and out of it


class Checks(Section):
    content: ContentCheck = ContentCheck()
    antivirus: AntivirusCheck = AntivirusCheck()
    spam: SpamCheck = SpamCheck()
    reverse_dns: CheckSettings = CheckSettings()
    names: CheckSettings = CheckSettings()
    dnsbl: CheckSettings = CheckSettings()
    dnswl: CheckSettings = CheckSettings()
    greylist: GreylistCheck = GreylistCheck()
    rates: CheckSettings = CheckSettings()
    early_talker: EarlyTalkerCheck = EarlyTalkerCheck()
    seen: SeenCheck = SeenCheck()
    reputation: ReputationCheck = ReputationCheck()
    usage: UsageCheck = UsageCheck()
    recipients: RecipientsCheck = RecipientsCheck()
    fullness: CheckSettings = CheckSettings()
    urls: CheckSettings = CheckSettings()
    uribl: CheckSettings = CheckSettings()
    spf: CheckSettings = CheckSettings(timeout=20.0)
    dkim: CheckSettings = CheckSettings(timeout=20.0)
    dmarc: CheckSettings = CheckSettings(timeout=40.0)
    arc: CheckSettings = CheckSettings(timeout=20.0)
    rhsbl: CheckSettings = CheckSettings()


class Store(Section):
    """Who keeps the mail of local domains: we do, or `host`, lmtp:HOST:PORT or lmtp:unix:/PATH. quota: octets of mail
    of an account that has no limit of its own; 0: any amount.
    """

    kind: Literal["embedded", "lmtp"] = "embedded"
    host: str = ""
    quota: Size = 0


def _time_of_day(value: str) -> str:
    if value and not _TIME_OF_DAY.fullmatch(value):
        raise ValueError(f"{value!r} is no time of day: write 07:00, or nothing for none")
    return value


class Quarantine(Section):
    """digest: when users are told, local time; links: how long those in a digest live."""

    keep: Duration = 2592000.0
    max_size: Size = 10 * 1024**3
    max_size_by_recipient: Size = 256 * 1024**2
    digest: Annotated[str, AfterValidator(_time_of_day)] = "07:00"
    links: Duration = 604800.0


def _url(value: str) -> str:
    if value and not _URL.fullmatch(value):
        raise ValueError(f"{value!r} is no address of pages: write https://mail.example.org or http://127.0.0.1:8080")
    return value.rstrip("/")


class Web(Section):
    """Pages for users. url: how they reach listen.web; tls: of listen.web, off where a proxy in front has it."""

    url: Annotated[str, AfterValidator(_url)] = ""
    tls: bool = True


class Trace(Section):
    keep: Duration = 2592000.0
    max_size: Size = 2 * 1024**3


class PolicySettings(Section):
    answer: Literal["late", "early"] = "late"
    watch: bool = False
    shadow: str = ""
    shadow_lookups: Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=20)] = 0


class Limits(Section):
    size: Size = 50 * 1024**2
    line: Annotated[int, Field(ge=1000, le=1_000_000)] = 8192
    recipients: Count = 100
    commands: Count = 2000
    errors: Count = 20
    messages: Count = 1000
    connections: Count = 1000
    connections_by_address: Count = 100
    login_failures_by_address: Count = 30
    login_failures_by_account: Count = 20
    login_window: Duration = 900.0
    hops: Annotated[int, Field(ge=10, le=500)] = 50
    idle: Duration = 300.0
    data: Duration = 1800.0
    message_stage: Duration = 60.0
    free_space: Size = 64 * 1024**2
    repair_bare_lf_from: Networks = ()


class Config(Section):
    """The whole file. `folder` is where relative paths begin."""

    gateway: Gateway
    listen: Listen = Listen()
    tls: TlsFiles = TlsFiles()
    networks: NetworkSettings = NetworkSettings()
    domains: dict[HostName, LocalDomain] = {}
    relay_domains: dict[RelayName, RelayDomain] = {}
    routes: dict[RouteName, Route] = {}
    delivery: Delivery = Delivery()
    forwarding: Forwarding = Forwarding()
    dns: Dns = Dns()
    checks: Checks = Checks()
    queue: Queue = Queue()
    quarantine: Quarantine = Quarantine()
    store: Store = Store()
    web: Web = Web()
    trace: Trace = Trace()
    policy: PolicySettings = PolicySettings()
    limits: Limits = Limits()
    folder: Path = Field(Path(), exclude=True)

    def path(self, path: Path) -> Path:
        return path if path.is_absolute() else self.folder / path

    @property
    def data(self) -> Path:
        return self.path(self.gateway.data)

    @property
    def shadow(self) -> Path | None:
        """The folder of the shadow policy."""
        return self.path(Path(self.policy.shadow)) if self.policy.shadow else None

    @property
    def policies(self) -> Path:
        return self.path(self.gateway.policies)

    @property
    def signatures(self) -> Path | None:
        """The folder of YARA rules: `yara` beside the policies, unless another or none is set."""
        yara = self.checks.antivirus.yara
        if yara is None:
            return self.policies / "yara"
        return self.path(Path(yara)) if yara else None


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Raises ConfigError: `smarthost.toml: listen.smtp.0: …`, one line for each error."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `smarthost init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    if "folder" in raw:
        raise ConfigError(f"{path}: folder: unknown key")
    _override(raw, os.environ if environ is None else environ)
    try:
        config = Config.model_validate({**raw, "folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(detail)}" for detail in error.errors())) from None
    _check_whole(path, config)
    return config


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, value in sorted(environ.items()):
        section, double, key = name.removeprefix("SMARTHOST_").lower().partition("__")
        if not name.startswith("SMARTHOST_") or not double:
            continue
        model = Config.model_fields[section].annotation if section in Config.model_fields else None
        field = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, Section) else None
        if field is None:
            raise ConfigError(f"environment: {name}: no key {section}.{key}")
        if not isinstance(raw.get(section, {}), dict):
            raise ConfigError(f"{section}: a table [{section}] is wanted")
        is_list = "tuple" in str(field.annotation)
        raw.setdefault(section, {})[key] = [part for part in value.split(",") if part] if is_list else value


def _explain(detail: Any) -> str:
    path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    match detail["type"]:
        case "extra_forbidden":
            text = "unknown key"
        case "missing":
            text = "missing"
        case "value_error":
            text = str(detail["ctx"]["error"])
        case _:
            text = f"{detail['msg']}, got {detail['input']!r}"[:200]
    return f"{path}: {text}"


def _check_whole(path: Path, config: Config) -> None:
    """What no single key shows."""
    both = sorted(set(config.domains) & set(config.relay_domains))
    if both:
        raise ConfigError(f"{path}: relay_domains.{both[0]}: is in domains too")
    for name, hop in (*config.relay_domains.items(), *config.routes.items()):
        section = f"routes.{name}" if isinstance(hop, Route) else f"relay_domains.{name}"
        if hop.host:
            try:
                parse_next_hop(hop.host)
            except ValueError as error:
                raise ConfigError(f"{path}: {section}.host: {error}") from None
        elif isinstance(hop, Route):
            raise ConfigError(f"{path}: {section}.host: missing")
    _check_store(path, config)
    foreign = sorted(set(config.gateway.sender_specified_routing) - set(config.domains))
    if foreign:
        raise ConfigError(f"{path}: gateway.sender_specified_routing: {foreign[0]} is not in domains")
    early = config.checks.early_talker
    if early.timeout <= early.delay:
        raise ConfigError(f"{path}: checks.early_talker.timeout: must be longer than its delay")
    for name, route in config.routes.items():
        if bool(route.username) != (route.password_file is not None):
            raise ConfigError(f"{path}: routes.{name}: username and password_file go together")


def _check_store(path: Path, config: Config) -> None:
    store, listen = config.store, config.listen
    if store.kind == "embedded":
        if store.host:
            raise ConfigError(f'{path}: store.host: is for kind = "lmtp"')
        return
    try:
        scheme, _, _ = parse_next_hop(store.host)
    except ValueError as error:
        raise ConfigError(f"{path}: store.host: {error}") from None
    if scheme != "lmtp":
        raise ConfigError(f"{path}: store.host: {store.host!r}: lmtp:HOST:PORT or lmtp:unix:/PATH is wanted")
    for name in ("imap", "imaps", "pop3", "pop3s", "lmtp"):
        if getattr(listen, name):
            raise ConfigError(f'{path}: listen.{name}: there is no mail to serve with store.kind = "lmtp"')


def parse_next_hop(text: str) -> tuple[str, str, int]:
    """`smtp:host:port` to (scheme, host, port), `lmtp:unix:/path` to ("lmtp", "unix:/path", 0). Raises ValueError."""
    scheme, _, rest = text.partition(":")
    if scheme not in ("smtp", "submission", "submissions", "lmtp"):
        raise ValueError(f"{text!r}: a next hop is smtp:HOST:PORT; other schemes are submission, submissions and lmtp")
    if scheme == "lmtp" and rest.startswith("unix:/"):
        return scheme, rest, 0
    host, port = parse_address(rest)
    if not port or rest.startswith(":"):
        raise ValueError(f"{text!r}: host and port are both needed")
    if ":" not in host:
        try:
            ip_address(host)
        except ValueError:
            host = parse_domain(host).ascii
    return scheme, host, port
