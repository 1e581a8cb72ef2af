"""Lists by kind: what is in, what is not, and where a wrong entry stands."""

from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.policy.lists import NetworkSet, build, load_lists


def v4() -> st.SearchStrategy[IPv4Network]:
    return st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda n: IPv4Network(n, strict=False))


def v6() -> st.SearchStrategy[IPv6Network]:
    return st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda n: IPv6Network(n, strict=False))


@given(st.lists(v4() | v6(), max_size=8), st.ip_addresses(), st.data())
def test_a_network_set_is_any_network_that_holds_the_address(
    networks: list[IPv4Network | IPv6Network], other: object, data: st.DataObject
) -> None:
    inside = [ip_address(int(network[-1])) if network.version == 4 else network[-1] for network in networks]
    address = data.draw(st.sampled_from([other, *inside]))
    if getattr(address, "ipv4_mapped", None) is not None:
        return  # its own case below
    assert (str(address) in NetworkSet(networks)) == any(address in network for network in networks)


def test_an_ipv4_mapped_address_is_judged_as_ipv4() -> None:
    assert "::ffff:10.1.2.3" in build("networks", ["10.0.0.0/8"])
    assert "::ffff:11.1.2.3" not in build("networks", ["10.0.0.0/8"])


@pytest.mark.parametrize("text", ["", "x", "10.0.0", "10.0.0.0/8", "none", "010.0.0.1", "10.0.0.1 "])
def test_what_is_no_address_is_in_no_network(text: str) -> None:
    assert text not in build("networks", ["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize(
    ("name", "is_in"),
    [
        ("example.org", True), ("EXAMPLE.org", True), ("www.example.org", False), ("below.example", True),
        ("a.below.example", True), ("a.b.below.example", True), ("notbelow.example", False), ("example", False),
        ("xn--bcher-kva.example", True), ("", False), ("org", False), ("below.example.org", False),
    ],
)  # fmt: skip
def test_a_domain_is_exact_and_with_a_leading_dot_takes_the_subdomains(name: str, is_in: bool) -> None:
    assert (name in build("domains", ["Example.org", ".below.example", "bücher.example"])) is is_in


def test_addresses_and_words_do_not_look_at_case() -> None:
    addresses = build("addresses", ["Bob@Example.org", '"a b"@example.org'])
    assert "bob@example.ORG" in addresses
    assert '"A b"@example.org' in addresses
    assert "ob@example.org" not in addresses
    assert "" not in addresses
    words = build("words", ["Buy Now", "straße"])
    assert "buy now" in words
    assert "STRAße" in words
    assert "buy" not in words


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("networks", "10.0.0.1/8"), ("networks", "10.0.0.0/33"), ("networks", "example.org"), ("domains", "-x.org"),
        ("domains", "*.example.org"), ("domains", "."), ("domains", "a b.org"), ("addresses", "bob"),
        ("addresses", "@example.org"), ("addresses", "a@b@c.org"),
    ],
)  # fmt: skip
def test_an_entry_of_the_wrong_kind_is_told_with_its_line(tmp_path: Path, kind: str, entry: str) -> None:
    path = tmp_path / f"mine.{kind}"
    good = {"networks": "192.0.2.0/24", "domains": "a.example", "addresses": "a@b.example"}[kind]
    path.write_text(f"# a comment\n\n{good}   # fine\n{entry}\n")
    with pytest.raises(ConfigError, match=r"mine\.\w+:4:1: ") as caught:
        load_lists(tmp_path)
    assert repr(entry) in str(caught.value)


def test_lists_of_a_folder_are_loaded_by_name(tmp_path: Path) -> None:
    (tmp_path / "friends.domains").write_text("a.example # x\n\n#b.example\n")
    (tmp_path / "two-words.words").write_text("x y\n")
    (tmp_path / ".friends.domains.swp").write_text("junk")
    (tmp_path / "folder").mkdir()
    found = load_lists(tmp_path)
    assert list(found) == ["friends", "two-words"]
    assert found["friends"].kind == "domains"
    assert "a.example" in found["friends"].entries
    assert "b.example" not in found["friends"].entries
    assert "x y" in found["two-words"].entries


def test_a_missing_folder_has_no_lists(tmp_path: Path) -> None:
    assert load_lists(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name", ["friends", "friends.txt", "a b.words", "1a.words", "a.b.words", "README.md"])
def test_a_file_that_is_no_list_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=r"NAME\.KIND"):
        load_lists(tmp_path)


def test_one_name_with_two_kinds_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.words").write_text("")
    (tmp_path / "a.domains").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        load_lists(tmp_path)


def test_a_list_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "a.words").write_bytes(b"gut\nsch\xf6n\n")
    with pytest.raises(ConfigError, match=r"a\.words"):
        load_lists(tmp_path)


def test_every_entry_of_a_long_list_is_found(tmp_path: Path) -> None:
    (tmp_path / "n.networks").write_text("".join(f"10.{n // 256}.{n % 256}.0/24\n" for n in range(10_000)))
    entries = load_lists(tmp_path)["n"].entries
    assert all(f"10.{n // 256}.{n % 256}.9" in entries for n in range(0, 10_000, 97))
    assert "10.200.0.1" not in entries
