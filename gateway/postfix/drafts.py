"""What an import writes: drafts of rules and lists, and their text in the policy language."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

STAGES = ("connect", "helo", "sender", "recipient", "message")
_PLAIN = re.compile(r"[A-Za-z0-9(][^#\x00-\x1f\x7f-\U0010ffff]*[^\s:#\x7f-\U0010ffff]")
_SEVERAL = re.compile(r"\bor\b|\bif\b")


@dataclass(slots=True)
class Draft:
    """One rule, or a comment where `action` is "". effects: texts of YAML flow mappings' entries."""

    action: str
    name: str
    when: str = ""
    reply: str = ""
    effects: tuple[str, ...] = ()
    is_monitor: bool = False
    on_unknown: str = ""


@dataclass
class Drafts:
    """lists: entries by `NAME.KIND`; remarks: what a person should look at."""

    rules: dict[str, list[Draft]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _marks: int = 0
    _stems: dict[str, str] = field(default_factory=dict)

    def add(self, stage: str, draft: Draft) -> None:
        if draft.action:
            draft.name = self._unique(draft.name)
        self.rules[stage].append(draft)

    def _unique(self, name: str) -> str:
        plain = "".join(char if char.isprintable() else " " for char in name)[:100].strip()
        plain = plain or "rule"
        number = self._names[plain] = self._names.get(plain, 0) + 1
        found = plain if number == 1 else f"{plain[:90]} ({number})"
        while number > 1 and found in self._names:
            number = self._names[plain] = self._names[plain] + 1
            found = f"{plain[:90]} ({number})"
        self._names.setdefault(found, 1)
        return found

    def remark(self, text: str) -> None:
        self.remarks[text[:500]] = None

    def new_mark(self, stem: str) -> str:
        self._marks += 1
        return f"{stem}-{self._marks}"

    def membership(self, fact: str, name: str, kind: str, entries: Iterable[str]) -> str:
        """A condition: is the fact one of the entries? One stands in the condition, many in a list of that name."""
        found = tuple(dict.fromkeys(entries))
        if not found:
            return "false"
        if len(found) == 1 and kind == "networks":
            return f'{fact} in ["{found[0]}"]'
        stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "entries"
        stem = stem if stem[0].isalpha() else f"list_{stem}"
        found_name, number = stem, 1
        while (taken := self._stems.get(found_name)) is not None and (taken, self.lists.get(taken)) != (
            f"{found_name}.{kind}",
            found,
        ):
            number += 1
            found_name = f"{stem}_{number}"
        self._stems[found_name] = f"{found_name}.{kind}"
        self.lists[f"{found_name}.{kind}"] = found
        return f"{fact} in @{found_name}"


def conjunction(*conditions: str) -> str:
    """All of them; "" where none is left."""
    wanted = [each for each in conditions if each and each != "true"]
    return " and ".join(f"({each})" if _SEVERAL.search(each) else each for each in wanted)


def disjunction(conditions: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(each for each in conditions if each != "false"))


def negation(condition: str) -> str:
    return f"not ({condition})"


def _scalar(text: str) -> str:
    """Plain where the loader takes it so."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def render(stage: str, drafts: Iterable[Draft]) -> str:
    lines = [f"stage: {stage}", "rules:"]
    for draft in drafts:
        if not draft.action:
            lines += [f"  # {line}"[:2000] for line in draft.name.splitlines()]
            continue
        lines.append(f"  - {draft.action}: {_scalar(draft.name)}")
        if draft.when:
            lines.append(f"    when: {_scalar(draft.when)}")
        if draft.reply:
            lines.append(f"    reply: {_scalar(draft.reply)}")
        if draft.effects:
            lines.append(f"    do: {{{', '.join(draft.effects)}}}")
        if draft.on_unknown:
            lines.append(f"    on_unknown: {draft.on_unknown}")
        if draft.is_monitor:
            lines.append("    mode: monitor")
    if all(not draft.action for draft in drafts):
        lines[1] = "rules: []"
    return "\n".join(lines) + "\n"
