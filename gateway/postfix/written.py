"""The policy that an import writes, loaded before anybody sees it: a rule that does not load becomes a comment."""

import re
import tempfile
from pathlib import Path

from gateway.core.errors import ConfigError
from gateway.policy.loader import load_policy
from gateway.postfix.drafts import Draft, Drafts, render

MAX_ROUNDS = 20
_FILES = {
    "connect": "10-connect.yaml", "helo": "20-helo.yaml", "sender": "30-sender.yaml", "recipient": "40-recipient.yaml",
    "message": "50-message.yaml",
}  # fmt: skip
_PLACE = re.compile(r"policies/(?:lists/)?([\w.-]+):(\d+):\d+: (.*)")


def load_what_is_written(drafts: Drafts) -> dict[str, str]:
    """Texts by path. Raises ConfigError when it cannot be mended."""
    for _ in range(MAX_ROUNDS):
        files = {f"policies/{_FILES[stage]}": render(stage, rules) for stage, rules in drafts.rules.items()}
        files |= {f"policies/lists/{name}": "\n".join(entries) + "\n" for name, entries in drafts.lists.items()}
        errors = _errors(files)
        if not errors:
            return files
        # From the end, so that the places of those before stay right.
        dropped = [_drop(drafts, error) for error in sorted(errors, key=_line_of, reverse=True)]
        if not any(dropped):
            break
    raise ConfigError(f"main.cf: {errors[0]}")


def _errors(files: dict[str, str]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="smarthost-import-") as folder:
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        try:
            load_policy(Path(folder, "policies"))
        except ConfigError as error:
            return [line for line in str(error).splitlines() if _PLACE.search(line)] or [str(error)]
    return []


def _line_of(error: str) -> int:
    match = _PLACE.search(error)
    return 0 if match is None else int(match[2])


def _drop(drafts: Drafts, error: str) -> bool:
    match = _PLACE.search(error)
    if match is None:
        return False
    name, line, why = match[1], int(match[2]), match[3]
    if name in drafts.lists:
        entries = list(drafts.lists[name])
        drafts.remark(f"{name}: {entries[line - 1]!r} is left out: {why}")
        del entries[line - 1]
        drafts.lists[name] = tuple(entries)
        return True
    stage = next((stage for stage, file in _FILES.items() if file == name), None)
    if stage is None:
        return False
    at = 3  # the first line behind `stage:` and `rules:`
    for number, draft in enumerate(drafts.rules[stage]):
        length = render(stage, [draft]).count("\n") - 2
        if at <= line < at + length and draft.action:
            drafts.remark(f"not translated: {draft.name}: {why}")
            drafts.rules[stage][number] = Draft("", f"not translated: {draft.action} {draft.name}: {why}")
            return True
        at += length
    return False
