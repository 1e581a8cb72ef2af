"""Which answers of a DNS list count: `127.0.0.2`, `127.0.0.2-11`, `127.0.0.2,127.0.0.4`."""

import re
from ipaddress import IPv4Address

from gateway.core.address import parse_domain

_RANGE = re.compile(r"(\d{1,3}\.\d{1,3}\.\d{1,3}\.)(\d{1,3})(?:-(\d{1,3}))?")


class AnswerFilter:
    """Raises ValueError."""

    def __init__(self, text: str) -> None:
        self._ranges: list[tuple[int, int]] = []
        for part in text.split(","):
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise ValueError(
                    f"`{part.strip()}` is no answer: write 127.0.0.2, 127.0.0.2-11, or several with commas"
                )
            first = int(IPv4Address(match[1] + match[2]))
            last = int(IPv4Address(match[1] + match[3])) if match[3] else first
            if last < first:
                raise ValueError(f"`{part.strip()}`: the end is before the start")
            self._ranges.append((first, last))

    def __contains__(self, text: str) -> bool:
        number = int(IPv4Address(text))
        return any(first <= number <= last for first, last in self._ranges)


def check_list(zone: str, answers: str | None = None) -> None:
    """The arguments of dnsbl(…) and dnswl(…). Raises ValueError."""
    domain = parse_domain(zone)
    if domain.is_literal or "." not in domain.ascii:
        raise ValueError(f"`{zone}` is no zone")
    if answers is not None:
        AnswerFilter(answers)
