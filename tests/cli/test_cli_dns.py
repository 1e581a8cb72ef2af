"""`dns` and `doctor`: what a domain should publish, ten mistakes and more in what it does, the world outside."""

import json
from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from gateway.senderauth.signing import SigningKey, new_private_key
from gateway.storage.sqlite_dkim import KeyState, SqliteDkimKeys
from tests.support.cli import Cli
from tests.support.process import Finished
from tests.support.tlssink import TlsSink

RSA, ED25519 = (SigningKey("sick.example", f"s-{kind}", new_private_key(kind)) for kind in ("rsa", "ed25519"))
WELL = SigningKey("well.example", "s", new_private_key("ed25519"))
WELL_ZONE = [
    "well.example MX 10 mail.well.example.",
    "mail.well.example A 127.0.0.1",
    "1.0.0.127.in-addr.arpa PTR mail.well.example.",
    'well.example TXT "v=spf1 mx -all"',
    'mail.well.example TXT "v=spf1 a -all"',
    f's._domainkey.well.example TXT "{WELL.record}"',
    '_dmarc.well.example TXT "v=DMARC1; p=reject; rua=mailto:postmaster@well.example"',
]


@pytest.fixture
def dns(bare: Cli) -> Iterator[NameServer]:
    with NameServer(WELL_ZONE) as server:
        yield server


def host(cli: Cli, dns: NameServer, *domains: str, more: str = "", keys: tuple[SigningKey, ...] = ()) -> None:
    """A gateway of that name, in the folder."""
    cli("init", "--domain", domains[0], "--hostname", "mail.well.example", "--non-interactive").expect(0)
    config = cli.folder / "smarthost.toml"
    text = config.read_text()
    sections = "".join(f'[domains."{name}"]\n' for name in domains[1:])
    config.write_text(f'{text}\n[dns]\nservers = ["{dns.address}"]\n{sections}{more}')
    store = SqliteDkimKeys(cli.folder / "data" / "accounts.db")
    for key in keys:
        store.add(key)
    store.set_states([(key, KeyState.ACTIVE) for key in keys])
    store.close()


def findings(done: Finished) -> set[tuple[str, str, str]]:
    return {(row["level"], row["about"], row["text"]) for row in json.loads(done.stdout)}


def test_a_domain_that_is_well(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example", keys=(WELL,))
    done = bare("dns", "check", "well.example").expect(0)
    assert done.stdout == "well.example: 0 errors, 0 warnings\n"


def test_what_it_is_told_to_publish_is_well(bare: Cli, dns: NameServer) -> None:
    """The zone that is printed, served, has nothing wrong with it."""
    host(bare, dns, "well.example", keys=(WELL,))
    dns.clear()
    lines = bare("dns", "zone", "well.example").expect(0).stdout.splitlines()
    for line in lines:
        if not line.startswith(";"):
            dns.add(line.replace("( ", "").replace(" )", ""))
    dns.add("mail.well.example A 127.0.0.1", "1.0.0.127.in-addr.arpa PTR mail.well.example.")
    assert "; mail.well.example. IN A <this host's IPv4 address>" in lines
    done = bare("dns", "check", "well.example", "--json").expect(0)
    assert {text for _, _, text in findings(done)} == {
        "A p tag value of none makes DMARC unenforced on email sent as well.example."
    }


def test_a_host_that_is_its_own_domain_has_one_spf_record(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example", keys=(WELL,))
    config = bare.folder / "smarthost.toml"
    config.write_text(config.read_text().replace('"mail.well.example"', '"well.example"'))
    dns.clear()
    lines = bare("dns", "zone", "well.example").expect(0).stdout.splitlines()
    dns.add(*(line.replace("( ", "").replace(" )", "") for line in lines if not line.startswith(";")))
    dns.add("well.example A 127.0.0.1", "1.0.0.127.in-addr.arpa PTR well.example.")
    found = findings(bare("dns", "check", "well.example", "--json").expect(0))
    assert {about for _, about, _ in found} == {"DMARC"}  # p=none, to begin with


def test_ten_mistakes_and_two_more(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "sick.example", keys=(RSA, ED25519))
    dns.clear()
    dns.add(
        "mail.well.example A 127.0.0.1",
        "1.0.0.127.in-addr.arpa PTR old.provider.example.",
        "sick.example MX 10 alias.sick.example.",
        "alias.sick.example CNAME other.example.",
        "other.example A 127.0.0.5",
        "sick.example MX 20 gone.sick.example.",
        'sick.example TXT "v=spf1 a:other.example ptr ?all"',
        's-ed25519._domainkey.sick.example TXT "v=DKIM1; k=ed25519; p="',
        '_dmarc.sick.example TXT "v=DMARC1; p=none; pct=50; rua=mailto:reports@other.example"',
    )
    done = bare("dns", "check", "sick.example", "--json").expect(1)
    found = findings(done)
    texts = {text for _, _, text in found}
    planted = {
        ("error", "MX", "alias.sick.example is an alias (CNAME), which no mail host may be (RFC 2181 10.3)"),
        ("error", "MX", "gone.sick.example has no address"),
        ("error", "MX", "sick.example: none of its mail hosts is mail.well.example"),
        ("error", "host", "127.0.0.1 is called old.provider.example by its reverse record"),
        ("error", "SPF", "mail of sick.example from this host (127.0.0.1) gets neutral"),
        ("warning", "SPF", "the record of sick.example says nothing of strangers"),
        ("warning", "SPF", "bounces from this host (127.0.0.1) get none for its own name"),
        ("error", "DKIM", "s-rsa._domainkey.sick.example: no such record yet"),
        ("error", "DKIM", "s-ed25519._domainkey.sick.example: key revoked"),
        ("warning", "DMARC", "Support for the pct tag was removed in RFC 9989"),
        ("warning", "DMARC", "A p tag value of none makes DMARC unenforced on email sent as sick.example."),
    }
    assert planted <= found
    assert any(
        "other.example does not indicate that it accepts DMARC reports about sick.example" in each for each in texts
    )
    # As text, with what to do.
    shown = bare("dns", "check", "sick.example").expect(1).stdout
    assert "error: MX: gone.sick.example has no address\n    mend: gone.sick.example. IN A <its address>\n" in shown
    assert f"sick.example: {sum(level == 'error' for level, _, _ in found)} errors, " in shown


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        ([], ("MX", "sick.example has no MX record")),
        (["sick.example MX 0 ."], ("MX", "sick.example says that it takes no mail (a null MX)")),
        (["sick.example MX 0 192.0.2.1."], ("MX", "192.0.2.1 is an address, where a name is wanted")),
        ([], ("SPF", "An SPF record does not exist.")),
        (['sick.example TXT "v=spf1 +all"'], ("SPF", "anybody may send as sick.example")),
        (['sick.example TXT "v=spf1 -all"', 'sick.example TXT "v=spf1 mx -all"'],
         ("SPF", "The domain has multiple SPF TXT records")),
        (['sick.example TXT "v=spf1 ip4:300.1.1.1 -all"'], ("SPF", "300.1.1.1 is not a valid IPv4 value.")),
        (['sick.example TXT "v=spf1 ip4:192.0.2.1 -all"'],
         ("SPF", "mail of sick.example from this host (127.0.0.1) gets fail")),
        ([], ("DMARC", "A DMARC record does not exist.")),
        (['_dmarc.sick.example TXT "v=DMARC1; p=qurantine"'],
         ("DMARC", "Tag p must have one of the following values: none,quarantine,reject - not qurantine")),
        ([f's-rsa._domainkey.sick.example TXT "{ED25519.record}"'],
         ("DKIM", "s-rsa._domainkey.sick.example: another key is there")),
        ([f's-ed25519._domainkey.sick.example TXT "{ED25519.record}; t=y"'],
         ("DKIM", "s-ed25519._domainkey.sick.example: it says that it is a test (t=y): nobody counts its signatures")),
    ],
)  # fmt: skip
def test_each_mistake_by_itself(bare: Cli, dns: NameServer, records: list[str], wanted: tuple[str, str]) -> None:
    host(bare, dns, "sick.example", keys=(RSA, ED25519))
    dns.add("exists.sick.example A 127.0.0.1", *records)
    assert ("error", *wanted) in findings(bare("dns", "check", "sick.example", "--json").expect(1))


def test_ten_includes_and_one(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "sick.example")
    dns.add(f'sick.example TXT "v=spf1 {" ".join(f"include:i{number}.example" for number in range(11))} -all"')
    dns.add(*(f'i{number}.example TXT "v=spf1 -all"' for number in range(11)))
    shown = bare("dns", "check", "sick.example").expect(1).stdout
    assert "requires 11/10 maximum DNS lookups" in shown
    assert "warning: DKIM: no key signs for sick.example" in shown


def test_dns_that_fails_is_told_and_ends(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example", keys=(WELL,))
    dns.fault("*", "servfail")
    shown = bare("dns", "check", "well.example").expect(1).stdout
    assert "warning: MX: well.example could not be asked for: DNS no usable answer" in shown


def test_a_domain_that_is_not_ours(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example")
    for command in ("records", "zone", "check"):
        done = bare("dns", command, "other.example").expect(1)
        assert "other.example is neither in [domains] nor in [relay_domains]" in done.stderr
    assert "no host name" in bare("dns", "zone", "a b").expect(1).stderr


def test_a_subdomain_that_is_relayed(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example", more='[relay_domains.".behind.example"]\n')
    assert (
        "\na.behind.example. IN MX 10 mail.well.example.\n" in bare("dns", "zone", "a.behind.example").expect(0).stdout
    )


def test_addresses_that_are_known_are_written_out(bare: Cli, dns: NameServer) -> None:
    more = (
        '[delivery]\nsource = ["198.41.0.4", "2001:500:2f::f"]\n'
        '[routes.default]\nhost = "smtp:relay.provider.example:587"\n[relay_domains."behind.example"]\n'
    )
    host(bare, dns, "well.example", more=more)
    rows = json.loads(bare("dns", "records", "behind.example", "--json").expect(0).stdout)
    values = {(row["name"], row["rdtype"]): row["value"] for row in rows}
    assert values["behind.example", "MX"] == "10 mail.well.example."
    assert values["mail.well.example", "A"] == "198.41.0.4"
    assert values["4.0.41.198.in-addr.arpa", "PTR"] == "mail.well.example."
    spf = next(row for row in rows if row["name"] == "behind.example" and row["rdtype"] == "TXT")
    assert spf["value"] == '"v=spf1 mx ip4:198.41.0.4 ip6:2001:500:2f::f -all"'
    assert "outbound mail goes through relay.provider.example" in spf["why"]
    zone = bare("dns", "zone", "behind.example").expect(0).stdout
    assert "\n; 4.0.41.198.in-addr.arpa. IN PTR mail.well.example.\n" in zone


# --- doctor -----------------------------------------------------------------------------------------------------------

LISTS = [
    *(f"2.0.0.127.{zone} A 127.0.0.2" for zone in ("zen.spamhaus.org", "bl.spamcop.net")),
    "tried.example MX 10 mx.tried.example.",
    "mx.tried.example A 127.0.0.7",
]


def doctor(cli: Cli, dns: NameServer, *, greeting: str | None = "220 hello") -> Finished:
    sink = TlsSink(host="127.0.0.7", replies={} if greeting is None else {"CONNECT": greeting})
    host(cli, dns, "well.example", keys=(WELL,), more=f"[delivery]\nport = {sink.port}\n")
    dns.add(*LISTS)
    if greeting is None:
        return cli("doctor", "--try-domain", "tried.example", "--json")
    with sink:
        return cli("doctor", "--try-domain", "tried.example", "--json")


def outside(done: Finished) -> set[tuple[str, str, str]]:
    """But for what hangs on this machine."""
    return {each for each in findings(done) if each[1] not in ("clock", "disk", "tls", "policy")}


def test_a_host_that_is_well(bare: Cli, dns: NameServer) -> None:
    assert outside(doctor(bare, dns).expect(0)) == set()


def test_a_way_out_that_is_closed(bare: Cli, dns: NameServer) -> None:
    (found,) = outside(doctor(bare, dns, greeting=None).expect(1))
    assert found[:2] == ("error", "way out")
    assert found[2].startswith("mx.tried.example[127.0.0.7]:")
    assert found[2].endswith(" cannot be reached: Connection refused")


def test_a_host_that_does_not_want_us(bare: Cli, dns: NameServer) -> None:
    done = doctor(bare, dns, greeting="554 5.7.1 you are on a list").expect(0)
    assert outside(done) == {
        ("warning", "way out", "mx.tried.example[127.0.0.7] does not want us: 554 5.7.1 you are on a list")
    }


def test_a_list_that_has_us_and_one_that_is_silent(bare: Cli, dns: NameServer) -> None:
    dns.remove("mail.well.example.", "A")
    dns.add("mail.well.example A 127.0.0.6", "6.0.0.127.in-addr.arpa PTR mail.well.example.")
    dns.add("6.0.0.127.bl.spamcop.net A 127.0.0.2")
    dns.fault("*.zen.spamhaus.org", "servfail")
    silent = "zen.spamhaus.org could not be asked about 127.0.0.6; a rule that hangs on it matches nobody either"
    assert outside(doctor(bare, dns).expect(1)) == {
        ("error", "lists", "bl.spamcop.net lists 127.0.0.6 (127.0.0.2): others may refuse its mail"),
        ("warning", "lists", silent),
    }


def test_a_broken_configuration_is_told_as_check_does(bare: Cli, dns: NameServer) -> None:
    host(bare, dns, "well.example")
    (bare.folder / "policies" / "50-message.yaml").write_text("stage: nowhere\n")
    assert "nowhere" in bare("doctor", "--try-domain", "tried.example").expect(1).stdout
