"""No import lets somebody in whom Postfix keeps out. What is expected was learnt from Postfix, by the harness."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.core.verdict import Stage
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import rehearse
from gateway.policy.values import UNKNOWN, Found
from gateway.policy_folder import ground_of, surroundings_of
from gateway.postfix.convert import Imported, convert

BASE = """\
myhostname = mx.example.test
mydestination = example.test
alias_maps =
local_recipient_maps = inline:{{alice=x},{bob=x}}
mynetworks = 127.0.0.0/8
"""
STRANGER: dict[str, Found] = {
    "client.ip": "192.0.2.10",
    "client.name": "mail.partner.test",
    "helo.name": "mail.partner.test",
    "sender.address": "a@partner.test",
    "recipient.address": "alice@example.test",
    "recipient.exists": True,
}


def made(folder: Path, main: str, table: str) -> Imported:
    (folder / "main.cf").write_text(BASE + main + "\n")
    (folder / "t").write_text(table)
    found = convert(folder / "main.cf")
    for name, text in found.files.items():
        path = folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return found


def answer(folder: Path, facts: Mapping[str, Found], last: Stage = Stage.RECIPIENT) -> str:
    config = load_config(folder / "made" / "smarthost.toml", {})
    policy = load_policy(folder / "made" / "policies", ground_of(config))
    return str(rehearse(policy, STRANGER | dict(facts), surroundings_of(config), last).action)


def client(kind: str, *after: str) -> str:
    return f"smtpd_client_restrictions = {', '.join([f'check_client_access {kind}:$config_directory/t', *after])}"


def sender(kind: str, *after: str) -> str:
    return f"smtpd_sender_restrictions = {', '.join([f'check_sender_access {kind}:$config_directory/t', *after])}"


REFUSED: dict[str, tuple[str, str, dict[str, Found]]] = {
    "a domain below an exception": (
        sender("hash"), "partner.test REJECT\nsub.partner.test OK\nx.sub.partner.test REJECT\n",
        {"sender.address": "a@x.sub.partner.test"},
    ),
    "a network inside an exception": (client("hash"), "192 REJECT\n192.0 OK\n192.0.2 REJECT\n", {}),
    "a tagged address before the untagged": (
        "recipient_delimiter = +\n" + sender("hash"),
        "a@partner.test OK\nb@partner.test OK\na+spam@partner.test REJECT\npartner.test REJECT\n",
        {"sender.address": "a+spam@partner.test"},
    ),
    "the first of two equal keys": (sender("hash"), "z@q.test OK\na@partner.test REJECT\na@partner.test OK\n", {}),
    "a network in an indexed table": (client("hash", "reject"), "192.0.2.0/24 OK\n", {}),
    "the null sender as <>": (sender("regexp"), "/^<>$/ REJECT\n", {"sender.address": ""}),
    "the null sender by any pattern": (sender("regexp"), "/./ REJECT\n", {"sender.address": ""}),
    "a name before an address": (client("pcre"), "/^192\\.0\\.2/ OK\n/partner\\.test$/ REJECT\n", {}),
    "a client without a name": (client("hash"), "unknown REJECT\n", {"client.name": None}),
    "a client whose name fails": (client("hash"), "unknown REJECT\n", {"client.name": UNKNOWN}),
    "a name that fails, and no permit": (client("hash", "reject"), "mail.partner.test OK\n", {"client.name": UNKNOWN}),
    "a name that fails, and its address": (
        client("hash"), "mail.partner.test OK\n192.0.2.10 REJECT\n", {"client.name": UNKNOWN}
    ),
    "a welcome list that fails": (
        "smtpd_client_restrictions = permit_dnswl_client list.test, reject", "", {'dnswl("list.test")': UNKNOWN}
    ),
    "a bare table of senders": ("smtpd_sender_restrictions = hash:$config_directory/t", "partner.test REJECT\n",
                                {"client.name": None}),
    "a bare table of recipients": (
        "smtpd_recipient_restrictions = reject_unauth_destination, hash:$config_directory/t",
        "alice@example.test REJECT\n", {},
    ),
    "networks under a condition": (client("cidr", "reject"), "if 10.0.0.0/8\n0.0.0.0/0 OK\nendif\n", {}),
    "a network with host bits": (client("cidr", "reject"), "192.0.2.10/8 OK\n", {}),
    "a condition behind a tab": (sender("regexp", "reject"), "if\t/@q.test/\n/./ OK\nendif\n", {}),
    "a result behind a tab": (client("hash"), "192.0.2.10 REJECT\tgo away\n", {}),
    "a pattern and not another": (
        "smtpd_recipient_restrictions = check_recipient_access regexp:$config_directory/t",
        "/^alice/!/^alice2/ REJECT\n", {},
    ),
    "an old name": ("smtpd_client_restrictions = reject_unknown_client", "", {"client.reverse_dns": "none"}),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_who_is_refused_stays_refused(what: str, tmp_path: Path) -> None:
    main, table, facts = REFUSED[what]
    made(tmp_path, main, table)
    assert answer(tmp_path, facts) in ("reject", "defer")


OUTSIDE = {
    "all but a network": ("mynetworks = cidr:$config_directory/t", "!10.0.0.0/8 OK\n", "10.1.2.3"),
    "networks under a condition": (
        "mynetworks = cidr:$config_directory/t", "if 10.0.0.0/8\n0.0.0.0/0 OK\nendif\n", "192.0.2.10"
    ),
    "a network in an indexed table": ("mynetworks = hash:$config_directory/t", "192.0.2.0/24 OK\n", "192.0.2.10"),
    "a network with host bits": ("mynetworks = 192.0.2.10/8", "", "192.0.2.10"),
    "host bits in a table": ("mynetworks = cidr:$config_directory/t", "192.0.2.10/24 OK\n", "192.0.2.10"),
    "all but what a pattern says": ("mynetworks = !regexp:$config_directory/t, 0.0.0.0/0", "/^192/ x\n", "192.0.2.10"),
    "all but what cannot be read": ("mynetworks = !mysql:$config_directory/t, 0.0.0.0/0", "", "192.0.2.10"),
}  # fmt: skip


@pytest.mark.parametrize("what", OUTSIDE)
def test_who_may_not_relay_is_not_trusted(what: str, tmp_path: Path) -> None:
    main, table, address = OUTSIDE[what]
    made(tmp_path, main, table)
    answered = answer(
        tmp_path, {"client.ip": address, "recipient.address": "x@remote.test", "recipient.exists": UNKNOWN}
    )
    assert answered in ("reject", "defer")


ELSEWHERE = {
    "an excluded subdomain": ("relay_domains = !secret.remote.test, remote.test", "x@secret.remote.test"),
    "the domain above its subdomains": (
        "parent_domain_matches_subdomains =\nrelay_domains = .remote.test", "x@remote.test"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ELSEWHERE)
def test_what_is_not_relayed_stays_so(what: str, tmp_path: Path) -> None:
    main, recipient = ELSEWHERE[what]
    made(tmp_path, main, "")
    assert answer(tmp_path, {"recipient.address": recipient}) in ("reject", "defer")


KNOWN = {
    "any mailbox of a domain": ("virtual_mailbox_domains = v.test\nvirtual_mailbox_maps =", "any@v.test"),
    "static mailboxes": ("virtual_mailbox_domains = v.test\nvirtual_mailbox_maps = static:x", "any@v.test"),
    "static relay recipients": ("relay_domains = v.test\nrelay_recipient_maps = static:x", "any@v.test"),
}


@pytest.mark.parametrize("what", KNOWN)
def test_who_exists_without_a_list_exists(what: str, tmp_path: Path) -> None:
    main, recipient = KNOWN[what]
    made(tmp_path, main, "")
    assert answer(tmp_path, {"recipient.address": recipient, "recipient.exists": False}) == "accept"


def test_the_first_pattern_decides_whom_mail_goes_to(tmp_path: Path) -> None:
    main = "virtual_alias_domains = v.test\nvirtual_alias_maps = regexp:$config_directory/t"
    made(tmp_path, main, "/^sales@v\\.test$/ alice@example.test\n/@v\\.test$/ bob@example.test\n")
    config = load_config(tmp_path / "made" / "smarthost.toml", {})
    policy = load_policy(tmp_path / "made" / "policies", ground_of(config))
    facts = STRANGER | {"recipient.address": "sales@v.test", "recipient.exists": False}
    found = rehearse(policy, facts, surroundings_of(config), Stage.RECIPIENT, full=True)
    given = [str(effect) for decision in found.decisions for effect in decision.effects]
    assert any("alice@" in each for each in given)
    assert not any("bob@" in each for each in given)


def test_a_place_in_a_redirection_is_never_an_address(tmp_path: Path) -> None:
    found = made(tmp_path, sender("regexp"), "/^(.*)@old\\.test$/ REDIRECT $1@new.test\n")
    assert not any("$1@" in line for line in found.files["policies/30-sender.yaml"].splitlines() if "do:" in line)
    assert found.remarks


def test_what_end_of_data_holds_is_held(tmp_path: Path) -> None:
    main = "smtpd_end_of_data_restrictions = check_sender_access hash:$config_directory/t"
    made(tmp_path, main, "a@partner.test HOLD\n")
    assert answer(tmp_path, {}, Stage.MESSAGE) == "hold"


def test_an_exclusion_that_is_lost_trusts_nobody_more(tmp_path: Path) -> None:
    made(tmp_path, "mynetworks = !ldap:x, 10.0.0.0/8", "")
    assert tomllib.loads((tmp_path / "made" / "smarthost.toml").read_text())["networks"]["trusted"] == []


# --- nothing is left out without a word -------------------------------------------------------------------------------

IMPORTANT = """\
always_bcc = a@b.test
body_checks = regexp:/x
canonical_maps = hash:/x
content_filter = smtp-amavis:[127.0.0.1]:10024
default_transport = error:no
fallback_transport = smtp:x
header_checks = regexp:/x
local_transport = error:no
luser_relay = x@y.test
mailbox_transport = lmtp:unix:x
masquerade_domains = foo.test
message_size_limit = 0
mynetworks_style = subnet
non_smtpd_milters = inet:localhost:8891
permit_mx_backup_networks = 10.0.0.0/8
recipient_bcc_maps = hash:/x
recipient_canonical_maps = hash:/x
recipient_delimiter = +-
relay_clientcerts = hash:/x
relay_domains = regexp:/dev/null
relocated_maps = hash:/x
sender_bcc_maps = hash:/x
sender_canonical_maps = hash:/x
sender_dependent_default_transport_maps = hash:/x
sender_dependent_relayhost_maps = hash:/x
smtp_fallback_relay = x.test
smtp_generic_maps = hash:/x
smtp_sasl_password_maps = hash:/x
smtp_tls_policy_maps = hash:/x
smtp_tls_security_level = encrypt
smtpd_authorized_xclient_hosts = 10.0.0.0/8
smtpd_client_auth_rate_limit = 5
smtpd_client_connection_rate_limit = 5
smtpd_client_message_rate_limit = 5
smtpd_client_recipient_rate_limit = 5
smtpd_command_filter = pcre:/x
smtpd_delay_reject = no
smtpd_milters = inet:localhost:8891
smtpd_proxy_filter = 127.0.0.1:10025
smtpd_sasl_exceptions_networks = 10.0.0.0/8
smtpd_sender_login_maps = hash:/x
smtpd_tls_auth_only = yes
smtpd_tls_req_ccert = yes
smtpd_tls_security_level = encrypt
smtpd_upstream_proxy_protocol = haproxy
soft_bounce = yes
transport_maps = inline:{{*=smtp:[x.test]}}
transport_maps = inline:{{u@a.test=smtp:[x.test]}}
transport_maps = inline:{{other.test=smtp:[x.test]}}
virtual_alias_maps = inline:{{@v.test=@w.test}}
virtual_alias_maps = inline:{{@v.test=a@w.test, b@w.test}}
virtual_alias_maps = static:x@y.test
virtual_transport = lmtp:x
alias_maps = inline:{{root=alice, /dev/null}}
smtpd_relay_restrictions = check_client_access inline:{192.0.2.1=OK}, reject_unauth_destination
""".splitlines()


@pytest.mark.parametrize("line", IMPORTANT)
def test_what_changes_who_gets_or_sends_mail_is_told(line: str, tmp_path: Path) -> None:
    assert made(tmp_path, line, "").remarks


def test_dunno_of_a_postscreen_list_spares_from_its_later_entries(tmp_path: Path) -> None:
    main = (
        "postscreen_access_list = cidr:$config_directory/t\n"
        "postscreen_denylist_action = enforce\npostscreen_greet_action = enforce"
    )
    made(tmp_path, main, "192.0.2.8/29 dunno\n192.0.2.0/24 reject\n0.0.0.0/0 permit\n")
    assert answer(tmp_path, {"client.early_talker": False}) == "accept"
    assert answer(tmp_path, {"client.early_talker": True}) == "reject"
    assert answer(tmp_path, {"client.ip": "192.0.2.99"}) == "reject"
    assert answer(tmp_path, {"client.ip": "198.51.100.1", "client.early_talker": True}) == "accept"


def test_relay_transport_to_an_address_is_the_way_of_relayed_domains(tmp_path: Path) -> None:
    found = made(tmp_path, "relay_domains = far.test\nrelay_transport = smtp:[10.1.2.3]:2525", "")
    assert "smtp:10.1.2.3:2525" in found.files["smarthost.toml"]


def test_the_text_of_a_refusal_may_begin_with_anything(tmp_path: Path) -> None:
    made(tmp_path, sender("hash"), "partner.test REJECT _go_ away\n")
    assert answer(tmp_path, {}) == "reject"
