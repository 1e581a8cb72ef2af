"""Which answers of a DNS list count: `127.0.0.2`, `127.0.0.2-11`, `127.0.0-255.1-3`, `127.0.0.2,127.0.0.4`."""

import operator
import re
from ipaddress import IPv4Address

from gateway.core.address import parse_domain
from gateway.core.verdict import Stage

_OCTET = r"(\d{1,3})(?:-(\d{1,3}))?"
_RANGE = re.compile(r"\.".join([_OCTET] * 4))


class AnswerFilter:
    """Raises ValueError."""

    def __init__(self, text: str) -> None:
        self._ranges: list[tuple[range, ...]] = []
        for part in text.split(","):
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise ValueError(
                    f"`{part.strip()}` is no answer: write 127.0.0.2, 127.0.0.2-11, or several with commas"
                )
            ends = [int(match[number] or match[number - 1]) for number in range(2, 9, 2)]
            ranges = tuple(range(int(match[number]), end + 1) for number, end in zip(range(1, 8, 2), ends, strict=True))
            if max(ends) > 255:
                raise ValueError(f"`{part.strip()}`: an octet is 0 to 255")
            if not all(ranges):
                raise ValueError(f"`{part.strip()}`: the end is before the start")
            self._ranges.append(ranges)

    def __contains__(self, text: str) -> bool:
        octets = IPv4Address(text).packed
        return any(all(map(operator.contains, ranges, octets)) for ranges in self._ranges)


def check_list(zone: str, answers: str | None = None) -> None:
    """The arguments of dnsbl(…), dnswl(…) and uribl(…). Raises ValueError."""
    domain = parse_domain(zone)
    if domain.is_literal or "." not in domain.ascii:
        raise ValueError(f"`{zone}` is no zone")
    if answers is not None:
        AnswerFilter(answers)


RHSBL_HOMES = {"sender": Stage.SENDER, "helo": Stage.HELO, "client": Stage.CONNECT, "ptr": Stage.CONNECT}


def check_rhsbl(whose: str, zone: str, answers: str | None = None) -> None:
    """The arguments of rhsbl(…). Raises ValueError."""
    if whose not in RHSBL_HOMES:
        raise ValueError(f"whose domain is one of {', '.join(RHSBL_HOMES)}")
    check_list(zone, answers)
