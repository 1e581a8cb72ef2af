"""Who gets a message, and from which reverse-path."""

import pytest

from gateway.accounts.directory import AccountDirectory
from gateway.accounts.srs import SenderRewriting
from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.transaction import Recipient
from gateway.core.verdict import Action, Bcc, ByRoute, Effect, Redirect
from gateway.queue.handling import Handling, Part
from gateway.queue.recipients import Expansion, Way
from tests.support.fakes import FakeAccounts

SRS = SenderRewriting(b"secret", lambda: 1e9)
ACCOUNTS = FakeAccounts(
    ["alice@example.org", "bob@other.example"],
    {
        "out@example.org": ("x@far.test",),
        "out@other.example": ("x@far.test", "y@far.test"),
        "both@example.org": ("alice@example.org", "x@far.test", "bob@other.example"),
        "deep@example.org": ("out@other.example",),
    },
)
SENDER = "anna@sender.test"


def expansion(*, rewrites: bool = True) -> Expansion:
    directory = AccountDirectory(ACCOUNTS, ["example.org", "other.example"], ["behind.example"], srs=SRS)
    return Expansion(directory, rewrites=rewrites)


def part(*addresses: str, effects: tuple[Effect, ...] = (), disposition: Action | None = None) -> Part:
    return Part(tuple(Recipient(parse_mailbox(each)) for each in addresses), Handling(effects, disposition))


def told(ways: list[Way]) -> list[tuple[str, list[str]]]:
    """The reverse-path, "+" before the domain that rewrote it, and who gets the message."""
    return [
        (
            f"+{way.reverse_path.mailbox.domain}"
            if way.reverse_path.mailbox and way.reverse_path.mailbox.local_part.startswith("SRS0=")
            else str(way.reverse_path),
            [str(to.forward_path) for to in way.recipients],
        )
        for way in ways
    ]


def ways(*addresses: str, sender: str = SENDER, effects: tuple[Effect, ...] = ()) -> list[tuple[str, list[str]]]:
    return told(expansion().ways(part(*addresses, effects=effects), path_or_null(sender)))


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        (["alice@example.org"], [(SENDER, ["alice@example.org"])]),
        (["out@example.org"], [("+example.org", ["x@far.test"])]),
        (["out@other.example"], [("+other.example", ["x@far.test", "y@far.test"])]),
        (["both@example.org"],
         [(SENDER, ["alice@example.org", "bob@other.example"]), ("+example.org", ["x@far.test"])]),
        # The address that the sender wrote to hands it on, whatever lies between.
        (["deep@example.org"], [("+example.org", ["x@far.test", "y@far.test"])]),
        # What two hand on to the same goes once; what goes by two domains goes from each.
        (["out@example.org", "out@other.example"],
         [("+example.org", ["x@far.test"]), ("+other.example", ["y@far.test"])]),
        # Nobody hands it on: a relay domain, and strangers of our own networks.
        (["z@behind.example"], [(SENDER, ["z@behind.example"])]),
        (["z@far.test"], [(SENDER, ["z@far.test"])]),
        (["out@example.org", "z@far.test"], [(SENDER, ["z@far.test"]), ("+example.org", ["x@far.test"])]),
    ],
)  # fmt: skip
def test_from_whom_it_comes(addresses: list[str], found: list[tuple[str, list[str]]]) -> None:
    assert ways(*addresses) == found


@pytest.mark.parametrize("sender", ["", "alice@example.org", "bob@other.example"])
def test_the_null_path_and_our_own_stay(sender: str) -> None:
    assert ways("both@example.org", sender=sender) == [
        (sender, ["alice@example.org", "x@far.test", "bob@other.example"])
    ]


def test_no_rewriting_where_it_is_off() -> None:
    found = told(expansion(rewrites=False).ways(part("both@example.org"), path_or_null(SENDER)))
    assert found == [(SENDER, ["alice@example.org", "x@far.test", "bob@other.example"])]


def test_a_redirection_hands_on_for_the_first_of_ours() -> None:
    effects = (Redirect("z@far.test"),)
    assert ways("alice@example.org", "bob@other.example", effects=effects) == [("+example.org", ["z@far.test"])]
    assert ways("z@behind.example", effects=effects) == [(SENDER, ["z@far.test"])]
    assert ways("alice@example.org", effects=(Redirect("bob@other.example"),)) == [(SENDER, ["bob@other.example"])]
    (way,) = expansion().ways(part("alice@example.org", effects=effects), path_or_null(SENDER))
    assert [to.orcpt for to in way.recipients] == ["rfc822;alice@example.org"]
    assert [str(to.forward_path) for to in way.part.recipients] == ["alice@example.org"]


def test_a_routed_address_is_not_ours_to_expand() -> None:
    assert ways("out@example.org", effects=(ByRoute("filter"),)) == [(SENDER, ["out@example.org"])]


def test_a_blind_copy_is_handed_on_for_whom_the_message_reached() -> None:
    whole = (part("alice@example.org", effects=(Bcc("archive@far.test"),)),)
    copies = expansion().copies(whole)
    assert copies is not None
    ours = expansion().first_of_ours(whole)
    assert told(expansion().ways(copies, path_or_null(SENDER), ours)) == [("+example.org", ["archive@far.test"])]
    assert told(expansion().ways(copies, path_or_null(SENDER))) == [(SENDER, ["archive@far.test"])]


def test_each_way_tells_whom_it_was_for() -> None:
    here, there = expansion().ways(part("both@example.org", "alice@example.org"), path_or_null(SENDER))
    assert [str(to.forward_path) for to in here.part.recipients] == ["both@example.org"]
    assert [str(to.forward_path) for to in there.part.recipients] == ["both@example.org"]


def test_a_bounce_goes_to_the_sender_that_is_held() -> None:
    held = SRS.forward(parse_mailbox('"Anna Berg"@sender.test'), parse_mailbox("x@example.org").domain)
    assert ways(str(held), sender="") == [("", ['"Anna Berg"@sender.test'])]
    assert ways(str(held).upper(), sender="") == [("", ['"ANNA BERG"@sender.test'])]


@pytest.mark.parametrize("count", [1, 40])
def test_nobody_is_lost_and_nobody_gets_two(count: int) -> None:
    addresses = [f"z{number}@far.test" for number in range(count)] + ["both@example.org", "out@other.example"]
    found = [to for _, group in ways(*addresses) for to in group]
    assert sorted(found) == sorted({*found})
    assert {*addresses[:count], "alice@example.org", "bob@other.example", "x@far.test", "y@far.test"} == {*found}
