"""Whatever main.cf and its tables hold: an import ends soon, with files that load, or one line that says why not."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import load_config
from gateway.core.errors import ConfigError
from gateway.policy.loader import load_policy
from gateway.policy_folder import ground_of
from gateway.postfix.convert import convert
from tests.support.gateway import REPOSITORY

BASE = b"""\
myhostname = mx.example.test
mydestination = example.test
alias_maps =
local_recipient_maps = inline:{{alice=x}}
"""
CLIENT = "smtpd_client_restrictions = check_client_access {}:$config_directory/t\n"
SENDER = "smtpd_sender_restrictions = check_sender_access {}:$config_directory/t\n"
POSTSCREEN = "postscreen_dnsbl_action = enforce\npostscreen_dnsbl_sites"
SECONDS = 20  # what no import of these may take; those that fail took minutes


def imported(folder: Path, main: str | bytes, table: str | bytes = b"", *, base: bytes = BASE) -> tuple[str, ...]:
    """Import, and load all that was written; return the remarks. Raises ConfigError."""
    (folder / "main.cf").write_bytes(base + (main if isinstance(main, bytes) else main.encode()))
    (folder / "t").write_bytes(table if isinstance(table, bytes) else table.encode())
    made = convert(folder / "main.cf")
    for name, text in made.files.items():
        path = folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    load_policy(folder / "made" / "policies", ground_of(load_config(folder / "made" / "smarthost.toml", {})))
    return made.remarks


# --- one by one -------------------------------------------------------------------------------------------------------

SETTINGS = {
    "an empty code": "unknown_relay_recipient_reject_code =\nrelay_domains = a.test\n"
    "relay_recipient_maps = inline:{x@a.test=x}",
    "a code that is none": "reject_code = 5ab\nsmtpd_client_restrictions = reject",
    "a code of two": "unknown_local_recipient_reject_code = 4z",
    "a threshold": f"{POSTSCREEN} = a.test\npostscreen_dnsbl_threshold = many",
    "an answer of postscreen": f"{POSTSCREEN} = a.test=127.0.0.[x]",
    "a zone of postscreen": f"{POSTSCREEN} = a!t",
    "no zone": "smtpd_client_restrictions = reject_rbl_client",
    "a zone with an emoji": "smtpd_client_restrictions = reject_rbl_client \U0001f600.test",
    "many answers": "smtpd_client_restrictions = reject_rbl_client a.test=127.[{0}].[{0}].2".format(
        ";".join(map(str, range(64)))
    ),
    "a null in a path": "virtual_alias_maps = hash:/etc/a\0b",
    "a device": "virtual_alias_maps = cidr:/dev/null hash:$config_directory",
    "a control character": "smtpd_client_restrictions = a\x01\x1bb",
    "superscript digits": "message_size_limit = \u00b2\u00b2",
    "a superscript sleep": "smtpd_client_restrictions = sleep \u00b2",
    "digits of others": "message_size_limit = \u0661\u0662\u0663\u0664",
    "thousands of digits": f"smtpd_recipient_limit = {'9' * 5000}",
    "a limit over ours": "smtpd_recipient_limit = 99999999\nsmtpd_client_connection_count_limit = 99999999",
    "a host name with a blank": "myhostname = foo bar",
    "no host name": "myhostname =",
    "a host name with a dot before it": "myhostname = .A",
    "a key with a dot before it": "virtual_alias_maps = inline:{{.z.test=x},{u@z.test=b@c.test}}",
    "a host name with an emoji": "myhostname = \U0001f600",
    "a delimiter with an emoji": "recipient_delimiter = \U0001f600",
    "a relay host that is none": "relayhost = [foo_bar!]",
    "a relay host with an emoji": "relayhost = [\U0001f600]:25",
    "a port that is none": "relayhost = [gw.test]:99999",
    "a relay host of dots": "relayhost = ..",
    "a transport that is none": "relay_domains = a.test\ntransport_maps = inline:{{a.test=smtp:[foo_bar!]:25}}",
    "a domain with a dot before it": "mydestination = .example.test, example.test",
    "a domain of two classes": "relay_domains = a.test\nparent_domain_matches_subdomains =\n"
    "virtual_alias_maps = inline:{{a.test=x},{u@a.test=b@c.test}}",
    "an alias with an emoji": "virtual_alias_maps = inline:{{a@z.test=\U0001f600@y.test}}",
    "a parameter of itself": "smtpd_client_restrictions = $smtpd_client_restrictions",
    "braces without end": f"smtpd_client_restrictions = {'${' * 5000}",
}
ONE_LINE_ERRORS = {"a parameter of itself"}


@pytest.mark.parametrize("what", SETTINGS)
def test_any_setting_gives_files_that_load(what: str, tmp_path: Path) -> None:
    if what in ONE_LINE_ERRORS:
        with pytest.raises(ConfigError, match=r"\Amain\.cf: .+\Z"):
            imported(tmp_path, SETTINGS[what] + "\n")
    else:
        imported(tmp_path, SETTINGS[what] + "\n")


TABLES = {
    "patterns for a client": (CLIENT.format("pcre"), r"/\.dyn\.example$/ REJECT"),
    "networks that are none": (CLIENT.format("hash"), "999 REJECT\n300.1 REJECT\n"),
    "patterns that RE2 refuses": (SENDER.format("pcre"), "/^(?!a)/ REJECT\n/(a)\\1/ OK\n/[/ OK\n/(/ REJECT\n"),
    "a pattern with an emoji": (SENDER.format("pcre"), "/\U0001f600/ REJECT \U0001f600\n"),
    "a pattern with a hash sign": (SENDER.format("pcre"), "/a #b/ REJECT\n"),
    "a long pattern": (SENDER.format("pcre"), f"/^({'|'.join(map(str, range(1000)))})@/ REJECT\n"),
    "a text with a hash sign": (SENDER.format("hash"), "a@x.test REJECT see item #3\n"),
    "header fields": (
        SENDER.format("hash"),
        "a@x.test PREPEND\nb@x.test PREPEND none\nc@x.test PREPEND Received: x\nd@x.test PREPEND X: {no.fact} }\n",
    ),
    "a header field with an emoji": (SENDER.format("hash"), "a@x.test PREPEND X-A: \U0001f600\n"),
    "a redirection with an emoji": (SENDER.format("hash"), "a@x.test REDIRECT \U0001f600@x.test\n"),
    "a hundred networks": (CLIENT.format("cidr"), "".join(f"10.0.{n}.0/24 REJECT\n" for n in range(200))),
    "a hundred patterns": (SENDER.format("pcre"), "".join(f"/^user{n}@example\\.test$/ REJECT\n" for n in range(200))),
    "a thousand local parts": (SENDER.format("hash"), "".join(f"user{n}@ REJECT\n" for n in range(1000))),
    "addresses with tags": (
        "recipient_delimiter = +\n" + SENDER.format("hash"),
        "".join(f"some.long.name{n}@some.long.domain{n}.test REJECT\n" for n in range(50)),
    ),
    "relay recipients with tags": (
        "recipient_delimiter = +\nrelay_domains = a.test\nrelay_recipient_maps = hash:$config_directory/t\n",
        "".join(f"user.name{n}@a.test x\n" for n in range(200)),
    ),
    "domains with all in them": (
        "virtual_alias_maps = hash:$config_directory/t\n",
        "".join(f"d{n}.test x\n@d{n}.test alice@example.test\n" for n in range(200)),
    ),
    "aliases by pattern": (
        "virtual_alias_maps = pcre:$config_directory/t\n",
        "".join(f"/^user{n}@d\\.test$/ alice@example.test\n" for n in range(200)),
    ),
}


@pytest.mark.parametrize("what", TABLES)
def test_any_table_gives_files_that_load(what: str, tmp_path: Path) -> None:
    imported(tmp_path, *TABLES[what])


ENDLESS = {
    "a class that names itself thrice": (
        "smtpd_restriction_classes = a\na = a a a a a\nsmtpd_client_restrictions = a\n", ""
    ),
    "parameters that double": (
        "".join(f"x{n} = $x{n + 1} $x{n + 1}\n" for n in range(29)) + "smtpd_client_restrictions = $x0\n", ""
    ),
    "a device without end": ("virtual_alias_maps = hash:/dev/zero\n", ""),
    "domains of two results": (
        SENDER.format("hash"), "".join(f"x{n}.test {('OK', 'REJECT')[n % 2]}\n" for n in range(40_000))
    ),
    "a result for each domain": (SENDER.format("hash"), "".join(f"x{n}.test REJECT {n}\n" for n in range(5_000))),
    "exclusions": (
        "mynetworks = 10.0.0.0/8, $config_directory/t\n",
        "".join(f"!10.{n // 250}.{n % 250}.1\n" for n in range(3_000)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ENDLESS)
def test_no_import_takes_minutes(what: str, tmp_path: Path) -> None:
    main, table = ENDLESS[what]
    (tmp_path / "main.cf").write_bytes(BASE + main.encode())
    (tmp_path / "t").write_text(table)
    script = 'ulimit -v 4000000; exec "$0" -m gateway policy import-postfix "$1/main.cf" --into "$1/to"'
    argv = ["sh", "-c", script, sys.executable, str(tmp_path)]
    done = subprocess.run(argv, cwd=REPOSITORY, timeout=SECONDS, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1


def test_what_looks_like_an_option_is_none_in_the_script(tmp_path: Path) -> None:
    imported(tmp_path, "virtual_alias_maps = inline:{{--help@example.test=-x@example.test}}\n")
    lines = (tmp_path / "made" / "addresses.sh").read_text().splitlines()
    assert all(" -" not in line.partition(" -- ")[0] for line in lines if line.startswith("smarthost "))


# --- anything ---------------------------------------------------------------------------------------------------------

KINDS = ("hash", "cidr", "pcre", "regexp", "texthash", "static", "inline", "mysql", "proxy:hash")
WORDS = (
    "permit", "permit_mynetworks", "reject_unauth_destination", "reject", "defer", "warn_if_reject", "sleep 3",
    "reject_unlisted_recipient", "reject_unknown_sender_domain", "reject_rbl_client zen.test=127.0.0.[2..8;11]",
    "permit_dnswl_client list.test", "reject_rhsbl_sender dbl.test", "check_policy_service unix:x", "a", "b",
    *(f"check_{subject}_access {kind}:$config_directory/t" for subject in ("client", "helo", "sender", "recipient")
      for kind in KINDS),
)  # fmt: skip
NAMES = (
    "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions", "a", "b",
)  # fmt: skip
OTHERS = (
    "mynetworks", "mydestination", "relay_domains", "virtual_alias_maps", "virtual_alias_domains", "alias_maps",
    "virtual_mailbox_maps", "virtual_mailbox_domains", "relay_recipient_maps", "local_recipient_maps", "transport_maps",
    "relayhost", "recipient_delimiter", "myhostname", "reject_code", "access_map_reject_code", "message_size_limit",
    "smtpd_recipient_limit", "postscreen_access_list", "postscreen_dnsbl_sites", "postscreen_dnsbl_threshold",
    "parent_domain_matches_subdomains", "smtpd_sender_login_maps", "unknown_local_recipient_reject_code",
)  # fmt: skip
junk = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    junk,
    st.sampled_from(["", "yes", "450", "550", "10.0.0.0/8", "!10.0.0.0/8", "a.test", ".a.test", "[gw.test]:587", "+"]),
    st.builds(lambda kind: f"{kind}:$config_directory/t", st.sampled_from(KINDS)),
)
keys = st.one_of(
    junk,
    st.sampled_from(["a@x.test", "x.test", ".x.test", "a@", "@x.test", "<>", "10", "10.0.0.0/8", "!10.0.0.0/8",
                     "192.0.2", "/a@x/", "/^(a)/i", "!/b/", "if /x/", "endif", "if 10.0.0.0/8"]),
)  # fmt: skip
results = st.one_of(
    junk,
    st.sampled_from(["OK", "REJECT", "DUNNO", "HOLD", "DISCARD", "DEFER x", "550 no", "PREPEND X-A: b", "a", "permit",
                     "REDIRECT a@x.test", "BCC $1@x.test", "smtp:[gw.test]:25", "alice@example.test", "reject"]),
    st.builds("REJECT {}".format, junk),
    st.builds("PREPEND {}".format, junk),
)  # fmt: skip
settings_of = st.dictionaries(st.sampled_from(OTHERS), values, max_size=4)
lists_of = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(WORDS), max_size=4), max_size=3)
lines_of = st.lists(st.tuples(keys, st.sampled_from([" ", "\t", "  "]), results), max_size=6)
line_ends = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=150, deadline=None)
@given(settings_of, lists_of, lines_of, line_ends)
def test_whatever_is_imported_loads(
    single: dict[str, str], lists: dict[str, list[str]], table: list[tuple[str, str, str]], end: str
) -> None:
    lines = ["smtpd_restriction_classes = a, b", *(f"{name} = {', '.join(words)}" for name, words in lists.items())]
    lines += [f"{name} = {value}" for name, value in single.items()]
    with tempfile.TemporaryDirectory() as folder:
        imported(Path(folder), end.join(lines) + end, end.join(map("".join, table)) + end)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_octets_of_any_kind_load(main: bytes, table: bytes) -> None:
    names = b"mynetworks", b"relay_domains", b"virtual_alias_maps", b"transport_maps", b"relay_recipient_maps"
    tail = b"".join(b"%s = hash:$config_directory/t, pcre:$config_directory/t\n" % name for name in names)
    tail += SENDER.format("hash").encode() + CLIENT.format("cidr").encode()
    with tempfile.TemporaryDirectory() as folder:
        imported(Path(folder), b"\n" + tail, table, base=main)
