"""Which mail program was seen to do what with the gateway: the table of docs/clients.md.

A test marked `shows(CLIENT, OPERATION, …)` says `shows(OPERATION)` right after the assertion that proves it. One that
passes without having shown just what its mark says fails (tests/e2e/conftest.py), and only one that passed is noted in
the file that $SMARTHOST_CLAIMS names. `make clients` runs them all and writes the table from that file:

    python -m tests.support.clients NOTED docs/clients.md
"""

import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import find_command, run

E2E = Path(__file__).resolve().parents[1] / "e2e"
OPERATIONS = ("read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
Claims = set[tuple[str, str]]  # of client and operation
LACKING = "\N{EN DASH}"
_TAKES = frozenset({"append", "make mailbox"})


@dataclass(frozen=True, slots=True)
class Client:
    """version: a command whose output has it first. lacks: what the program cannot do."""

    version: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()


CLIENTS = {
    "mutt": Client(("mutt", "-v")),
    "alpine": Client(("alpine", "-v")),
    "Thunderbird": Client(("thunderbird", "--version")),
    "mbsync": Client(("mbsync", "--version"), frozenset({"search"})),
    "offlineimap3": Client(("dpkg-query", "-W", "-f=${Version}", "offlineimap3"), frozenset({"search"})),
    "fetchmail, IMAP": Client(("fetchmail", "--version"), _TAKES | {"move"}),
    "fetchmail, POP3": Client(("fetchmail", "--version"), _TAKES | {"flag", "move", "search"}),
    "getmail6, IMAP": Client(("getmail", "--version"), _TAKES),
    "getmail6, POP3": Client(("getmail", "--version"), _TAKES | {"flag", "move", "search"}),
    "curl": Client(("curl", "--version")),
    "imaplib": Client(),
    "IMAPClient": Client(),
}


def declared() -> Claims:
    """What the marks of the tests say."""
    found: Claims = set()
    for path in sorted(E2E.glob("test_*.py")):
        if "pytest.mark.shows(" not in path.read_text(encoding="utf-8"):
            continue
        for value in vars(importlib.import_module(f"tests.e2e.{path.stem}")).values():
            marks = getattr(value, "pytestmark", []) if callable(value) else []
            for client, *operations in (mark.args for mark in marks if mark.name == "shows"):
                found |= {(client, operation) for operation in operations}
    return found


def note(path: Path, client: str, operations: Iterable[str]) -> None:
    """Remember for `make clients` that a test passed which showed this; several processes may do so at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{client}\t{operation}\n" for operation in operations))


def noted(path: Path) -> Claims:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(client, operation) for client, _, operation in (line.partition("\t") for line in lines)}


# --- the table ----------------------------------------------------------------------------------------------------


def cells(claims: Claims, client: str) -> list[str]:
    """One for each operation: shown, not there to be shown, or neither."""
    lacks = CLIENTS[client].lacks
    return [
        "yes" if (client, operation) in claims else LACKING if operation in lacks else "not shown"
        for operation in OPERATIONS
    ]


def rows(text: str) -> list[list[str]]:
    """Of the table in a document, heading first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def heading() -> list[str]:
    return ["Client", "Version", *OPERATIONS]


def measured_version(client: str) -> str:
    if client == "imaplib":
        return f"Python {platform.python_version()}"
    if client == "IMAPClient":
        return importlib.metadata.version("IMAPClient")
    command = CLIENTS[client].version
    if find_command(command[0]) is None:
        return "?"
    finished = run(command, timeout=60)
    match = re.search(r"\d+(\.\d+)+(~\w+)?\w*", finished.stdout)
    return match[0] if match else "?"


def with_table(text: str, claims: Claims, version: Callable[[str], str] = measured_version) -> str:
    """The document with this table in place of the one it has."""
    lines = [heading(), ["---"] * len(heading())]
    tried = {client for client, _ in claims}
    for client in CLIENTS:
        lines.append([client, version(client) if client in tried else "not tried", *cells(claims, client)])
    table = (
        "".join("| " + " | ".join(line) + " |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")
    )
    return re.sub(r"(?:^\|.*\n)+", lambda _: table, text, count=1, flags=re.MULTILINE)


def main(noted_path: str, document: str) -> str:
    """The reason why nothing was written, or an empty text."""
    claims = noted(Path(noted_path))
    if absent := declared() - claims:
        return "no test has shown: " + "; ".join(f"{client}: {operation}" for client, operation in sorted(absent))
    path = Path(document)
    path.write_text(with_table(path.read_text(encoding="utf-8"), claims), encoding="utf-8")
    return ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
