"""What keeps this host from working with others: a closed way out, a wrong clock, a full disk."""

import asyncio
import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

from gateway.core.ports import Records, Resolver
from gateway.published.inspection import ERROR, WARNING, Finding

GREETING_S = 10.0
_TIMEX_OCTETS = 512  # of struct timex, 208 on Linux with 64 bits
_TIME_ERROR = 5
_LITTLE = 10  # times the reserve: time to act


async def way_out(domain: str, port: int, resolver: Resolver) -> list[Finding]:
    """Can a mail host of the domain be reached? Many providers close port 25 to their customers."""
    answer = await resolver.lookup(domain, "MX")
    hosts = sorted(each for each in answer.values if isinstance(each, tuple)) if isinstance(answer, Records) else []
    if not hosts:
        return [Finding(WARNING, "way out", f"{domain} has no MX record to try the way out with")]
    name = hosts[0][1]
    found = await resolver.lookup(name, "A")
    if not isinstance(found, Records):
        return [Finding(WARNING, "way out", f"{name} has no address to try the way out with")]
    address = str(found.values[0])
    try:
        async with asyncio.timeout(GREETING_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else f"no greeting in {GREETING_S:.0f} s"
        mend = f"have the provider open port {port}, or send through a relay: [routes.default]"
        return [Finding(ERROR, "way out", f"{name}[{address}]:{port} cannot be reached: {reason}", mend)]
    if not greeting.startswith(b"2"):
        text = f"{name}[{address}] does not want us: {greeting[:200].decode('ascii', 'replace').strip()}"
        return [Finding(WARNING, "way out", text)]
    return []


def clock() -> list[Finding]:
    """As the kernel has it: signatures and the expiry of mail hang on the time."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    except (OSError, AttributeError):
        return []
    if state != _TIME_ERROR:
        return []
    return [Finding(WARNING, "clock", "the system's clock is not synchronised", "run chrony or systemd-timesyncd")]


def disk(folder: Path, reserve: int) -> list[Finding]:
    """reserve: octets that mail leaves free."""
    free = shutil.disk_usage(folder).free
    if free < reserve:
        return [Finding(ERROR, "disk", f"{folder}: {_mb(free)} free, under the {_mb(reserve)} of limits.free_space")]
    if free < reserve * _LITTLE:
        return [Finding(WARNING, "disk", f"{folder}: {_mb(free)} free")]
    return []


def _mb(octets: int) -> str:
    return f"{octets // 1024**2} MB"
