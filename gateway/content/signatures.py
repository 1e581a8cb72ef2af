"""The embedded engine: YARA rules over decoded parts and the files in archives, by YARA-X.

Every rule that matches is a find, by its name; a rule tagged `note` is told and no find. Rules are the operator's and
trusted; what is scanned is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yara_x

from gateway.core.errors import ConfigError

SCAN_S = 5  # whole seconds for one object
MAX_MATCHES = 20  # that are told


@dataclass(frozen=True, slots=True)
class Signatures:
    """Compiled once, before the fork, and shared by all who scan."""

    rules: yara_x.Rules
    count: int

    def scanner(self) -> Callable[[bytes], tuple[str, ...]]:
        """Gives the names of the rules that match; raises yara_x.TimeoutError and ScanError.

        Made after the fork: it has a thread for its deadline.
        """
        if not self.count:
            return lambda octets: ()
        scanner = yara_x.Scanner(self.rules)
        scanner.set_timeout(SCAN_S)
        scanner.fast_scan(True)
        scanner.max_matches_per_pattern(100)

        def scan(octets: bytes) -> tuple[str, ...]:
            found = scanner.scan(octets).matching_rules
            return tuple(rule.identifier for rule in found if "note" not in rule.tags)[:MAX_MATCHES]

        return scan


NO_SIGNATURES = Signatures(yara_x.compile(""), 0)


def compile_signatures(folder: Path) -> Signatures:
    """Of all *.yar and *.yara below a folder. Raises ConfigError that names file and line; no folder: no rules."""
    compiler = yara_x.Compiler(includes_enabled=False)
    errors = []
    for path in sorted((*folder.rglob("*.yar"), *folder.rglob("*.yara"))):
        try:
            compiler.new_namespace(str(path.relative_to(folder)))
            compiler.add_source(path.read_text(encoding="utf-8"), origin=str(path))
        except yara_x.CompileError as error:
            errors.append(f"{path}: {error}")
        except (OSError, UnicodeDecodeError) as error:
            errors.append(f"{path}: {error}")
    if errors:
        raise ConfigError("\n".join(errors))
    rules = compiler.build()
    return Signatures(rules, sum(1 for _ in rules))
