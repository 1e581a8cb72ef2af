"""Restrictions that ask for a fact that the policy language has too."""

from dataclasses import dataclass, replace

from gateway.postfix.actions import Act, Kind, coded
from gateway.postfix.maincf import MainCf

# reject_invalid_helo_hostname: valid_hostname() of Postfix, which takes `_` and single labels.
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NUMERIC = 'matches(helo.name, "^[0-9.]+$")'
_BARE_ADDRESS = 'matches(helo.name, "^[0-9]{1,3}(?:[.][0-9]{1,3}){3}$")'  # reject_invalid_helo_hostname lets it pass
_HOST_NAME = f'({_BARE_ADDRESS} or matches(helo.name, "^{_LABEL}(?:[.]{_LABEL})*[.]?$") and not {_NUMERIC})'
_FULL_NAME = f'(matches(helo.name, "^{_LABEL}(?:[.]{_LABEL})+[.]?$") and not {_NUMERIC})'
_IN_DESTINATION = "recipient.is_local or recipient.is_relayed"


@dataclass(frozen=True, slots=True)
class Refusal:
    when: str
    act: Act


def _refuse(status: str, text: str, code_name: str = "reject_code") -> Act:
    """Its code is that of the parameter, in the configuration; those of unknown_* ask DNS, and defer where it fails."""
    return Act(
        Kind.REJECT, f"554 {status} {text}", code_name=code_name, defers_unknown=code_name.startswith("unknown_")
    )


# Postfix rewrites user%domain@here and domain!user@here before it judges: to strangers these are addresses elsewhere.
SOURCE_ROUTED = 'matches(recipient.local, "[%!]")'
HAS_OWNER = "HAS_OWNER"  # the place of the condition that smtpd_sender_login_maps gives
_RELAY_DENIED = "<{recipient.address}>: Relay access denied"
_NO_DOMAIN = "<{sender.address}>: Sender address rejected: Domain not found"
_PERMIT = Act(Kind.PERMIT)
NULL_MX = Act(Kind.REJECT, "550 5.7.27 <{sender.address}>: Sender address rejected: Domain does not accept mail")
CONDITIONS: dict[str, tuple[str, Act]] = {
    "permit": ("", _PERMIT),
    "permit_mynetworks": ("client.trusted", _PERMIT),
    "permit_sasl_authenticated": ("auth.user", _PERMIT),
    "permit_auth_destination": (_IN_DESTINATION, _PERMIT),
    "reject": ("", _refuse("5.7.1", "Access denied")),
    "defer": ("", Act(Kind.DEFER, "450 4.7.1 Try again later")),
    "defer_if_permit": ("", Act(Kind.DEFER_IF_PERMIT)),
    "defer_if_reject": ("", Act(Kind.DEFER_IF_REJECT)),
    "reject_unauth_destination": (
        f"not ({_IN_DESTINATION})", _refuse("5.7.1", _RELAY_DENIED, "relay_domains_reject_code"),
    ),
    "defer_unauth_destination": (f"not ({_IN_DESTINATION})", Act(Kind.DEFER, f"454 4.7.1 {_RELAY_DENIED}")),
    "reject_unknown_client_hostname": (
        'client.reverse_dns != "pass"',
        _refuse("5.7.25", "Client host rejected: cannot find your hostname", "unknown_client_reject_code"),
    ),
    "reject_unknown_reverse_client_hostname": (
        "not client.ptr",
        _refuse("5.7.25", "Client host rejected: cannot find your reverse hostname", "unknown_client_reject_code"),
    ),
    "reject_invalid_helo_hostname": (
        f"not (helo.is_literal and helo.is_valid or {_HOST_NAME})",
        _refuse("5.5.2", "<{helo.name}>: Helo command rejected: Invalid name", "invalid_hostname_reject_code"),
    ),
    "reject_non_fqdn_helo_hostname": (
        f"not (helo.is_literal and helo.is_valid or {_FULL_NAME})",
        _refuse("5.5.2", "<{helo.name}>: Helo command rejected: need fully-qualified hostname", "non_fqdn_reject_code"),
    ),
    "reject_unknown_helo_hostname": (
        "not (helo.is_literal or helo.resolves)",
        _refuse("5.7.1", "<{helo.name}>: Helo command rejected: Host not found", "unknown_hostname_reject_code"),
    ),
    "reject_non_fqdn_sender": (
        'not (sender.is_null or "." in sender.domain or starts_with(sender.domain, "["))',
        _refuse("5.5.2", "<{sender.address}>: Sender address rejected: need fully-qualified address",
                "non_fqdn_reject_code"),
    ),
    "reject_unknown_sender_domain": (
        "not (sender.is_local or sender.domain_exists)", _refuse("5.1.8", _NO_DOMAIN, "unknown_address_reject_code"),
    ),
    "reject_unlisted_sender": (
        "not sender.exists", _refuse("5.1.0", "<{sender.address}>: Sender address rejected: User unknown"),
    ),
    "reject_sender_login_mismatch": (
        f"(auth.user and not auth.owns_sender) or (not auth.user and {HAS_OWNER})",
        _refuse("5.7.1", "<{sender.address}>: Sender address rejected: not owned by you"),
    ),
    "reject_authenticated_sender_login_mismatch": (
        "auth.user and not auth.owns_sender",
        _refuse("5.7.1", "<{sender.address}>: Sender address rejected: not owned by you"),
    ),
    "reject_known_sender_login_mismatch": (
        f"auth.user and {HAS_OWNER} and not auth.owns_sender",
        _refuse("5.7.1", "<{sender.address}>: Sender address rejected: not owned by you"),
    ),
    "reject_unauthenticated_sender_login_mismatch": (
        f"not auth.user and {HAS_OWNER}",
        _refuse("5.7.1", "<{sender.address}>: Sender address rejected: not logged in"),
    ),
    "reject_non_fqdn_recipient": (
        'not ("." in recipient.domain or starts_with(recipient.domain, "["))',
        _refuse("5.5.2", "<{recipient.address}>: Recipient address rejected: need fully-qualified address",
                "non_fqdn_reject_code"),
    ),
    "reject_unknown_recipient_domain": (
        "not (recipient.is_local or recipient.domain_exists)",
        _refuse("5.1.2", "<{recipient.address}>: Recipient address rejected: Domain not found",
                "unknown_address_reject_code"),
    ),
    "reject_unverified_recipient": (
        "not recipient.exists",
        _refuse("5.1.1", "<{recipient.address}>: Recipient address rejected: undeliverable",
                "unverified_recipient_reject_code"),
    ),
    "reject_multi_recipient_bounce": (
        "sender.is_null and recipients.count > 0",
        _refuse("5.5.3", "Multi-recipient bounce", "multi_recipient_bounce_reject_code"),
    ),
}  # fmt: skip
# What the gateway does anyway, for everybody.
IGNORED = frozenset({"reject_unauth_pipelining"})


def with_code(act: Act, cf: MainCf) -> Act:
    """A refusal with the code that the configuration gives it: of 4xx it is a deferral."""
    if not act.code_name:
        return act
    code = cf.get(act.code_name)
    if len(code) != 3 or code[0] not in "45":
        return act
    found = coded(code, act.reply.partition(" ")[2])
    return replace(act, kind=found.kind, reply=found.reply)
