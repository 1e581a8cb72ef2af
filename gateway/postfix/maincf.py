"""Postfix's main.cf (postconf(5)): logical lines, `$name` expansion, the defaults of what an import asks for."""

import platform
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.core.errors import ConfigError

MAX_DEPTH = 60
MAX_VALUE = 200_000  # characters of one expanded value
# What YAML refuses, or takes for a line's end.
_CONTROL = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), *range(127, 160), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF), "?"
)
DEFAULTS = {
    "alias_maps": "hash:/etc/aliases",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "parent_domain_matches_subdomains": "relay_domains, smtpd_access_maps",
    "recipient_delimiter": "",
    "allow_percent_hack": "yes",
    "swap_bangpath": "yes",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    "virtual_alias_maps": "$virtual_maps",
    "virtual_alias_domains": "$virtual_alias_maps",
    "default_database_type": "hash",
    "default_destination_recipient_limit": "50",
    "access_map_reject_code": "554",
    "access_map_defer_code": "450",
    "invalid_hostname_reject_code": "501",
    "maps_rbl_reject_code": "554",
    "multi_recipient_bounce_reject_code": "550",
    "non_fqdn_reject_code": "504",
    "relay_domains_reject_code": "554",
    "reject_code": "554",
    "unknown_address_reject_code": "450",
    "unknown_client_reject_code": "450",
    "unknown_hostname_reject_code": "450",
    "unknown_local_recipient_reject_code": "550",
    "unknown_relay_recipient_reject_code": "550",
    "unknown_virtual_alias_reject_code": "550",
    "unknown_virtual_mailbox_reject_code": "550",
    "unverified_recipient_reject_code": "450",
    "smtpd_reject_unlisted_recipient": "yes",
    "smtpd_reject_unlisted_sender": "no",
}
_COMPARISON = re.compile(r"\s*\{(.*?)\}\s*(==|!=)\s*\{(.*?)\}\s*\?(.*)", re.DOTALL)


class MainCf:
    """folder: what $config_directory means. Raises ConfigError when the file cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            text = plain(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        self.folder = path.resolve().parent
        self._own = dict(_parameters(text))
        self._known: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._own

    def names(self) -> list[str]:
        """Of all parameters that the file sets."""
        return list(self._own)

    def get(self, name: str, depth: int = 0) -> str:
        """The value with all that it refers to; of what nobody set the default, or ""."""
        if name not in self._known:
            if depth > MAX_DEPTH:
                raise ConfigError(f"main.cf: {name}: parameters refer to each other more than {MAX_DEPTH} deep")
            found = self._value(name, depth)
            if len(found) > MAX_VALUE:
                raise ConfigError(f"main.cf: {name}: over {MAX_VALUE} characters")
            self._known[name] = found
        return self._known[name]

    def _value(self, name: str, depth: int) -> str:
        if name in self._own:
            return self._expand(self._own[name], depth)
        match name:
            case "config_directory":
                return str(self.folder)
            case "myhostname":
                return platform.node() if "." in platform.node() else f"{platform.node()}.localdomain"
            case "mydomain":
                return self.get("myhostname", depth + 1).partition(".")[2] or "localdomain"
            case _:
                return self._expand(DEFAULTS.get(name, ""), depth)

    def raw(self, name: str) -> str:
        """As it is written."""
        return self._own.get(name, "")

    def words(self, name: str) -> list[str]:
        return list(split(self.get(name)))

    def is_on(self, name: str) -> bool:
        return self.get(name).lower() == "yes"

    def _expand(self, text: str, depth: int) -> str:
        out: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            out.append(text[at:dollar])
            at = dollar + 1
            if text[at : at + 1] == "$":
                out.append("$")
                at += 1
            elif text[at : at + 1] in ("{", "("):
                end = closing(text, at)
                out.append(self._reference(text[at + 1 : end], depth + 1))
                at = end + 1
            elif match := re.compile(r"\w+").match(text, at):
                out.append(self.get(match[0], depth + 1))
                at = match.end()
            else:
                out.append("$")
        return "".join([*out, text[at:]])

    def _reference(self, inner: str, depth: int) -> str:
        comparison = _COMPARISON.fullmatch(inner)
        if comparison is not None:
            left, sign, right, rest = comparison.groups()
            is_equal = self._expand(left, depth).strip() == self._expand(right, depth).strip()
            return self._choice(rest, is_equal == (sign == "=="), depth)
        match = re.match(r"(\w+)\s*([?:])(.*)", inner, re.DOTALL)
        if match is None:
            return self.get(inner.strip(), depth)
        is_set = bool(self.get(match[1], depth))
        if match[2] == ":":
            return "" if is_set else self._expand(_bare(match[3]), depth)
        return self._choice(match[3], is_set, depth)

    def _choice(self, text: str, is_true: bool, depth: int) -> str:
        """`{a}:{b}`, `{a}`, or `a`."""
        stripped = text.strip()
        if not stripped.startswith("{"):
            return self._expand(text, depth) if is_true else ""
        end = closing(stripped, 0)
        rest = stripped[end + 1 :].strip().removeprefix(":")
        return self._expand(stripped[1:end] if is_true else _bare(rest), depth)


def plain(text: str) -> str:
    """Without control characters, and with LF: nothing that is written may carry them on."""
    return text.replace("\r\n", "\n").translate(_CONTROL)


def _bare(text: str) -> str:
    stripped = text.strip()
    return stripped[1:-1] if stripped.startswith("{") and stripped.endswith("}") else text


def logical_lines(text: str) -> Iterator[str]:
    """A line that begins with a blank goes on with the one before; comments and empty lines are left out."""
    held: list[str] = []
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace() and held:
            yield " ".join(held)
            held = []
        held.append(line.strip())
    if held:
        yield " ".join(held)


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for line in logical_lines(text):
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), value.strip()


def closing(text: str, at: int) -> int:
    """Where the bracket at `at` ends; the end of the text if it does not."""
    pairs = {"{": "}", "(": ")"}
    opened, closed, depth = text[at], pairs[text[at]], 0
    for number in range(at, len(text)):
        depth += (text[number] == opened) - (text[number] == closed)
        if depth == 0:
            return number
    return len(text)


def split(text: str) -> Iterator[str]:
    """Words between blanks and commas; what is in braces is one word, with `type:` before it."""
    at = 0
    while at < len(text):
        if text[at] in ", \t\r\n":
            at += 1
            continue
        start = at
        while at < len(text) and text[at] not in ", \t\r\n":
            at = closing(text, at) + 1 if text[at] == "{" else at + 1
        yield text[start:at]
