"""smarthost.toml: defaults, strictness with paths, environment, units, cross checks."""

from pathlib import Path

import pytest

from gateway.config import Config, load_config, parse_duration, parse_next_hop, parse_size
from gateway.core.errors import ConfigError

BASE = '[gateway]\nhostname = "mail.example.org"\n'


def load(folder: Path, text: str = "", environ: dict[str, str] | None = None, base: str = BASE) -> Config:
    path = folder / "smarthost.toml"
    path.write_text(base + text, encoding="utf-8")
    return load_config(path, environ or {})


def error(folder: Path, text: str, environ: dict[str, str] | None = None, base: str = BASE) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ, base)
    return str(caught.value)


CHECK = {"timeout": 10.0, "on_error": "skip"}


def test_every_key_has_its_documented_default(tmp_path: Path) -> None:
    assert load(tmp_path).model_dump() == {
        "gateway": {
            "hostname": "mail.example.org",
            "data": Path("data"),
            "policies": Path("policies"),
            "user": "smarthost",
            "recipient_delimiter": "+",
            "sender_specified_routing": (),
            "workers": 0,
        },
        "listen": {
            "smtp": (),
            "submission": (),
            "submissions": (),
            "pop3": (),
            "pop3s": (),
            "imap": (),
            "imaps": (),
            "lmtp": (),
            "web": (),
            "metrics": "127.0.0.1:9125",
            "proxy_from": (),
            "xclient_from": (),
        },
        "tls": {"certificate": Path("tls/cert.pem"), "key": Path("tls/key.pem"), "minimum": "1.2"},
        "networks": {"trusted": ("127.0.0.0/8", "::1/128"), "upstream": ()},
        "domains": {},
        "relay_domains": {},
        "routes": {},
        "delivery": {
            "port": 25,
            "allow_private": False,
            "source": (),
            "concurrency": 20,
            "connect_timeout": 30.0,
        },
        "forwarding": {"srs": True, "arc": True},
        "dns": {"servers": (), "validating": False},
        "checks": {
            **dict.fromkeys(("reverse_dns", "names", "dnsbl", "dnswl", "rates", "urls", "uribl", "rhsbl"), CHECK),
            "content": {"timeout": 45.0, "on_error": "defer"},
            "spam": {
                "timeout": 45.0,
                "on_error": "skip",
                "keep": 365 * 86400.0,
                "engines": ("bayes",),
                "engine_timeout": 10.0,
                "rspamd_password_file": None,
                "learn_from_junk": True,
            },
            "antivirus": {"timeout": 20.0, "on_error": "defer", "clamd": (), "yara": None},
            "greylist": {**CHECK, "delay": 300.0, "keep": 36 * 86400.0},
            "spf": {**CHECK, "timeout": 20.0},
            "dkim": {**CHECK, "timeout": 20.0},
            "dmarc": {**CHECK, "timeout": 40.0},
            "arc": {**CHECK, "timeout": 20.0},
            "early_talker": {**CHECK, "delay": 2.0},
            "seen": {**CHECK, "keep": 180 * 86400.0},
            "reputation": {"timeout": 20.0, "on_error": "skip", "half_life": 30 * 86400.0},
            "usage": {**CHECK, "floor": 100, "factor": 3.0, "keep": 28 * 86400.0},
            "recipients": {
                "timeout": 10.0,
                "on_error": "defer",
                "keep_existing": 86400.0,
                "keep_missing": 3600.0,
            },
            "fullness": {"timeout": 10.0, "on_error": "skip"},
        },
        "queue": {
            "retry": (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0),
            "expire": 5 * 86400.0,
            "warn_after": 4 * 3600.0,
        },
        "quarantine": {
            "keep": 2592000.0,
            "max_size": 10 * 1024**3,
            "max_size_by_recipient": 256 * 1024**2,
            "digest": "07:00",
            "links": 604800.0,
        },
        "store": {"kind": "embedded", "host": "", "quota": 0},
        "web": {"url": "", "tls": True},
        "trace": {"keep": 30 * 86400.0, "max_size": 2 * 1024**3},
        "policy": {"answer": "late", "watch": False, "shadow": "", "shadow_lookups": 0},
        "limits": {
            "size": 50 * 1024**2,
            "line": 8192,
            "recipients": 100,
            "commands": 2000,
            "errors": 20,
            "messages": 1000,
            "connections": 1000,
            "connections_by_address": 100,
            "login_failures_by_address": 30,
            "login_failures_by_account": 20,
            "login_window": 900.0,
            "hops": 50,
            "idle": 300.0,
            "data": 1800.0,
            "message_stage": 60.0,
            "free_space": 64 * 1024**2,
            "repair_bare_lf_from": (),
        },
    }


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.data == tmp_path / "data"
    assert config.policies == tmp_path / "policies"
    assert config.path(Path("/etc/x")) == Path("/etc/x")


def test_values_are_read_and_put_in_shape(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        'user = "nobody"\n[listen]\nsmtp = ["0.0.0.0:25", "[::]:25"]\nmetrics = ""\nproxy_from = ["10.0.0.0/8"]\n'
        '[domains."Bücher.example"]\n[relay_domains."Partner.example"]\nhost = "smtp:10.0.0.7:26"\n'
        '[routes.default]\nhost = "submission:[::1]:587"\nusername = "u"\npassword_file = "secret"\nauth = "login"\n'
        '[dns]\nservers = ["127.0.0.1", "127.0.0.1:5353"]\n[queue]\nretry = ["1m", 90]\nexpire = "2d"\n'
        '[trace]\nmax_size = "1GB"\n[limits]\nsize = 1000\n[tls]\nminimum = "1.3"\n',
    )
    assert config.gateway.user == "nobody"
    assert config.listen.smtp == ("0.0.0.0:25", "[::]:25")
    assert config.listen.metrics == ""
    assert list(config.domains) == ["xn--bcher-kva.example"]
    assert config.relay_domains["partner.example"].host == "smtp:10.0.0.7:26"
    assert config.routes["default"].password_file == Path("secret")
    assert config.dns.servers == ("127.0.0.1:53", "127.0.0.1:5353")
    assert config.queue.retry == (60.0, 90.0)
    assert (config.queue.expire, config.trace.max_size, config.limits.size) == (172800.0, 1024**3, 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nosuch]\n", "nosuch: unknown key"),
        ("[listen]\nsmpt = []\n", "listen.smpt: unknown key"),
        ("[limits]\nsizes = 1\n", "limits.sizes: unknown key"),
        ('[domains."a.example"]\nx = 1\n', "domains.a.example.x: unknown key"),
        ("[routes.default]\nhots = 1\n", "routes.default.hots: unknown key"),
        ('[routes."a b"]\n', "routes.a b: "),
        ("[routes.other]\n", "routes.other.host: missing"),
        ('[listen]\nsmtp = ["127.0.0.1"]\n', "listen.smtp.0: '127.0.0.1' is no address:port"),
        ('[listen]\nsmtp = ["127.0.0.1:1", "::1:25"]\n', "listen.smtp.1: '::1:25': an IPv6 address needs brackets"),
        ('[listen]\nmetrics = "x"\n', "listen.metrics: 'x' is no address:port"),
        ('[listen]\nproxy_from = ["10.0.0.1/8"]\n', "listen.proxy_from.0: "),
        ('[networks]\ntrusted = ["x"]\n', "networks.trusted.0: "),
        ('[domains."a b"]\n', "domains.a b: domain has a label"),
        ('[domains."[192.0.2.1]"]\n', "a name is wanted, not an address literal"),
        ("[delivery]\nport = 0\n", "delivery.port: "),
        ("[delivery]\nport = 65536\n", "delivery.port: "),
        ("[queue]\nretry = []\n", "queue.retry: "),
        ('[queue]\nretry = ["x"]\n', "queue.retry.0: 'x' is no time"),
        ('[queue]\nexpire = "0s"\n', "queue.expire: "),
        ("[queue]\nexpire = true\n", "queue.expire: True is no time"),
        ('[limits]\nsize = "5 apples"\n', "limits.size: '5 apples' is no size"),
        ("[limits]\nsize = -1\n", "limits.size: "),
        ("[limits]\nrecipients = 0\n", "limits.recipients: "),
        ("[limits]\nline = 999\n", "limits.line: "),
        ("[limits]\nhops = 9\n", "limits.hops: "),
        ('[policy]\nanswer = "soon"\n', "policy.answer: "),
        ('[tls]\nminimum = "1.1"\n', "tls.minimum: "),
        ("workers = 13\n", "gateway.workers: "),
        ("[listen]\nsmtp = 5\n", "listen.smtp: "),
        ("[tls]\nkey = 5\n", "tls.key: "),
        ('[routes.default]\nhost = "smtp:x"\n', "routes.default.host: 'x' is no address:port"),
        ('[routes.default]\nhost = "smpt:x:25"\n', "routes.default.host: 'smpt:x:25': a next hop is"),
        ("[routes.default]\n", "routes.default.host: missing"),
        ('[relay_domains."a.example"]\nhost = "x"\n', "relay_domains.a.example.host: 'x': a next hop is"),
        ('[domains."a.example"]\n[relay_domains."A.example"]\n', "relay_domains.a.example: is in domains too"),
        (
            '[routes.default]\nhost = "smtp:x:25"\nusername = "u"\n',
            "routes.default: username and password_file go together",
        ),
        (
            '[routes.default]\nhost = "smtp:x:25"\npassword_file = "u"\n',
            "routes.default: username and password_file go together",
        ),
        ("x = \n", "Invalid value"),
        ("[gateway]\n", ""),
    ],
)
def test_a_wrong_key_or_value_is_told_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    told = error(tmp_path, text)
    assert told.startswith(f"{tmp_path / 'smarthost.toml'}: {message if ': ' in message else ''}")
    assert message in told


def test_all_errors_are_told_a_line_each(tmp_path: Path) -> None:
    lines = error(tmp_path, "[limits]\nhops = 1\nfoo = 2\n[bar]\n").splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["bar", "limits.foo", "limits.hops"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gateway: missing"),
        ("[gateway]\n", "gateway.hostname: missing"),
        ("folder = 'x'\n" + BASE, "folder: unknown key"),
    ],
)
def test_the_hostname_is_wanted_and_no_inner_key(tmp_path: Path, text: str, message: str) -> None:
    assert error(tmp_path, text, base="").endswith(message)


def test_a_file_that_is_not_there_or_not_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `smarthost init` writes one"):
        load_config(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "bad.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})


def test_the_environment_overrides_keys_of_every_kind(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[listen]\nsmtp = ["127.0.0.1:1"]\n',
        {
            "SMARTHOST_GATEWAY__HOSTNAME": "other.example",
            "SMARTHOST_LISTEN__SMTP": "127.0.0.1:2,[::1]:3",
            "SMARTHOST_LISTEN__POP3": "",
            "SMARTHOST_DELIVERY__ALLOW_PRIVATE": "true",
            "SMARTHOST_DELIVERY__PORT": "2525",
            "SMARTHOST_QUEUE__RETRY": "1m,2m",
            "SMARTHOST_LIMITS__SIZE": "1MB",
            "SMARTHOST_CONFIG": "elsewhere.toml",
            "PATH": "/bin",
        },
    )
    assert config.gateway.hostname == "other.example"
    assert config.listen.smtp == ("127.0.0.1:2", "[::1]:3")
    assert config.listen.pop3 == ()
    assert (config.delivery.allow_private, config.delivery.port) == (True, 2525)
    assert (config.queue.retry, config.limits.size) == ((60.0, 120.0), 1024**2)


@pytest.mark.parametrize(
    "name", ["SMARTHOST_NOSUCH__KEY", "SMARTHOST_LISTEN__NOSUCH", "SMARTHOST_DOMAINS__X", "SMARTHOST_FOLDER__X"]
)
def test_an_unknown_override_is_an_error(tmp_path: Path, name: str) -> None:
    assert f"environment: {name}: no key" in error(tmp_path, "", {name: "x"})


def test_an_override_of_a_section_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    assert "listen" in error(tmp_path, BASE, {"SMARTHOST_LISTEN__SMTP": "127.0.0.1:1"}, base="listen = 5\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (90, 90),
        (1.5, 1.5),
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("5d", 432000),
        ("1w", 604800),
        ("1.5 h", 5400),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "5 minutes", "-5", "5M", "1e3", True, None, "5m5s", "inf"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1000", 1000),
        (1000, 1000),
        ("64KB", 65536),
        ("50MB", 52428800),
        ("2GB", 2**31),
        ("1T", 2**40),
        ("1.5 KiB", 1536),
        ("10b", 10),
        (2**53 + 1, 2**53 + 1),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "x", "-5", "5 apples", True, None, "5iB", "1KB2", "9" * 400])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_a_name_server_with_an_ipv6_address_keeps_its_port(tmp_path: Path) -> None:
    (server,) = load(tmp_path, '[dns]\nservers = ["[::1]:5353"]\n').dns.servers
    assert server.rpartition(":")[0].strip("[]") == "::1"
    assert server.endswith(":5353")


@pytest.mark.parametrize(
    "text",
    [
        '[dns]\nservers = ["not an address"]\n',
        '[delivery]\nsource = ["not an address"]\n',
        "[delivery]\nport = true\n",
        '[listen]\nsmtp = ["not an address:25"]\n',
        '[listen]\nsmtp = ["[127.0.0.1]:25"]\n',
        '[routes.default]\nhost = "smtp::25"\n',
        '[routes.default]\nhost = "smtp:[]:25"\n',
        '[routes.default]\nhost = "smtp:x:0"\n',
        '[trace]\nmax_size = "' + "9" * 400 + '"\n',
    ],
)
def test_values_that_could_never_work_are_refused_at_load(tmp_path: Path, text: str) -> None:
    assert error(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("smtp:10.0.0.7:25", ("smtp", "10.0.0.7", 25)),
        ("submission:a.example:587", ("submission", "a.example", 587)),
        ("submissions:[::1]:465", ("submissions", "::1", 465)),
    ],
)
def test_next_hops(text: str, hop: tuple[str, str, int]) -> None:
    assert parse_next_hop(text) == hop
