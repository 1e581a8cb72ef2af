"""Spans of time as policies write them: 30s, 5m, 2h, 1d."""

import re

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_window(text: str) -> float:
    """Seconds. Raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no time: write 30s, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]
