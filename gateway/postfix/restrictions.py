"""smtpd_*_restrictions as drafts of rules (postconf(5), SMTPD_ACCESS_README).

Postfix tries one list after the other, all of them at RCPT; a permit ends its list, a refusal ends all. Here each
list goes to the stage where the last of its facts is known. What an earlier permit of a list spares from its later
restrictions stands in their conditions.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gateway.policy.listanswers import AnswerFilter
from gateway.postfix.access import Manner, results_of
from gateway.postfix.actions import Act, Kind, act_of
from gateway.postfix.drafts import STAGES, Draft, Drafts, conjunction, disjunction, negation
from gateway.postfix.facts import CONDITIONS, HAS_OWNER, IGNORED, NULL_MX, SOURCE_ROUTED, Refusal, with_code
from gateway.postfix.maincf import MainCf, split
from gateway.postfix.tables import Unreadable, is_table, read_table

MAX_DEPTH = 10
MAX_PERMIT = 300  # characters of a condition that is repeated; a longer one becomes a mark
LISTS = {
    "smtpd_client_restrictions": "connect",
    "smtpd_helo_restrictions": "helo",
    "smtpd_sender_restrictions": "sender",
    "smtpd_relay_restrictions": "recipient",
    "smtpd_recipient_restrictions": "recipient",
    "smtpd_data_restrictions": "recipient",
    "smtpd_end_of_data_restrictions": "message",
}
_SUBJECTS = ("client", "helo", "sender", "recipient")
_TAKES_WORD = re.compile(
    r"check_\w+_access|reject_rbl_client|reject_rhsbl_\w+|permit_\w+wl_\w+|check_policy_service|sleep"
)
_RHSBL = {"sender": "sender", "helo": "helo", "client": "client", "reverse_client": "ptr"}
# Marks of what some restrictions only ask for, until all others were tried.
DEFER_IF_PERMIT, DEFER_IF_REJECT, HOLD = "postfix-defer-if-permit", "postfix-defer-if-reject", "postfix-hold"


@dataclass(slots=True)
class Step:
    """One restriction's effect. when "" or "true": always; source: its words."""

    when: str
    act: Act
    source: str
    is_monitor: bool = False


@dataclass
class Translation:
    """uses_probe: some restriction wants next hops asked."""

    cf: MainCf
    drafts: Drafts
    manner: Manner
    unlisted: Refusal  # what refuses recipients that do not exist
    uses_probe: bool = False
    _is_soft: bool = False  # DEFER_IF_REJECT may have come before
    _marks: dict[str, int] = field(default_factory=dict)

    # --- lists to stages ------------------------------------------------------------------------------------------

    def run(self) -> None:
        stage = STAGES[0]
        if not self.cf.words("smtpd_relay_restrictions"):
            self.drafts.remark(
                "smtpd_relay_restrictions is empty: Postfix relays for whomever smtpd_recipient_restrictions permits"
                " before reject_unauth_destination; here the relay guard refuses that to strangers"
            )
        for name, natural in LISTS.items():
            steps = list(self._steps(self.cf.words(name)))
            if not steps:
                continue
            stage = max(stage, self._stage(natural, steps), key=STAGES.index)  # never before the list before it
            self.drafts.add(stage, Draft("", f"{name} = {' '.join(self.cf.get(name).split())}"))
            self._write(name, stage, steps)

    @staticmethod
    def _stage(natural: str, steps: list[Step]) -> str:
        needed = [_stage_of(step.when) for step in steps]
        return max([natural, *needed], key=STAGES.index)

    def _write(self, name: str, stage: str, steps: list[Step]) -> None:
        permits: list[str] = []
        for step in steps:
            spared = disjunction(permits)
            when = conjunction(negation(spared) if spared else "", step.when)
            if step.act.kind is Kind.PERMIT:
                permits.append(step.when or "true")
                if step.when in ("", "true"):
                    return  # nothing after it is reached
                if len(disjunction(permits)) > MAX_PERMIT:
                    permits = [self._marked(name, stage, disjunction(permits))]
                continue
            self._rule(stage, when, step)
            self._is_soft = self._is_soft or step.act.kind is Kind.DEFER_IF_REJECT

    def _marked(self, name: str, stage: str, condition: str) -> str:
        number = self._marks[name] = self._marks.get(name, 0) + 1
        mark = f"{name.removesuffix('_restrictions').replace('_', '-')}-permit{number}"[:40]
        self.drafts.add(stage, Draft("note", f"{name} permits", condition, effects=(f"mark: {mark}",)))
        return f'"{mark}" in marks'

    def _rule(self, stage: str, when: str, step: Step) -> None:
        act = step.act
        if act.kind is Kind.COMMENT:
            self.drafts.add(stage, Draft("", f"not translated: {step.source}: {act.text}"))
            self.drafts.remark(f"not translated: {step.source}: {act.text}")
            return
        if act.kind is Kind.REJECT and self._is_soft and not step.is_monitor:
            soft = conjunction(f'"{DEFER_IF_REJECT}" in marks', when)
            self.drafts.add(stage, Draft("defer", f"{step.source}, softly", soft, "450 4.7.1 Access denied for now"))
        action, effects = _action_of(act)
        self.drafts.add(stage, Draft(action, step.source, when, act.reply, effects, step.is_monitor))
        if act.defers_unknown and not step.is_monitor:
            # As Postfix does: a look-up that failed defers unless something else refuses.
            mark = (f"mark: {DEFER_IF_PERMIT}",)
            self.drafts.add(stage, Draft("note", f"{step.source}: cannot be known", when, "", mark, on_unknown="match"))

    # --- restrictions to steps ------------------------------------------------------------------------------------

    def _steps(self, words: list[str], depth: int = 0) -> Iterator[Step]:
        if depth > MAX_DEPTH:
            self.drafts.remark("restrictions refer to each other without end")
            return
        monitors = False
        at = 0
        while at < len(words):
            word = words[at].strip("{} ") if words[at].startswith("{") else words[at]
            at += 1
            if word == "warn_if_reject":
                monitors = True
                continue
            argument = ""
            if " " in word:
                word, _, argument = word.partition(" ")
            elif _TAKES_WORD.fullmatch(word) and at < len(words):
                argument = words[at]
                at += 1
            elif is_table(word):
                word, argument = "check_client_access", word
            for step in self._restriction(word, argument.strip(), depth):
                yield replace(step, is_monitor=True) if monitors else step
            monitors = False

    def _restriction(self, word: str, argument: str, depth: int) -> Iterator[Step]:
        source = f"{word} {argument}".strip()
        if word in CONDITIONS:
            condition, act = CONDITIONS[word]
            self.uses_probe = self.uses_probe or word == "reject_unverified_recipient"
            if word == "reject_unknown_sender_domain":
                yield Step("sender.null_mx and not sender.is_local", NULL_MX, f"{source}: null MX")
            if word.endswith("_unauth_destination") and self.cf.get("allow_percent_hack") != "no":
                condition = f"{condition} or {SOURCE_ROUTED}"
            if HAS_OWNER in condition:
                condition = condition.replace(HAS_OWNER, self._has_owner())
            yield Step(condition, with_code(act, self.cf), source)
        elif word == "reject_unlisted_recipient":
            yield Step(self.unlisted.when, self.unlisted.act, source)
        elif word.startswith("check_") and word.endswith("_access") and word[6:-7] in _SUBJECTS:
            yield from self._table(argument, word[6:-7], source, depth)
        elif word == "reject_rbl_client":
            yield self._list("dnsbl", (), argument, source, with_code(_LISTED, self.cf))
        elif word == "permit_dnswl_client":
            yield self._list("dnswl", (), argument, source, Act(Kind.PERMIT))
        elif word.startswith("reject_rhsbl_") and word[13:] in _RHSBL:
            yield self._list("rhsbl", (_RHSBL[word[13:]],), argument, source, with_code(_LISTED, self.cf))
        elif word == "sleep" and argument.isdigit():
            yield Step("", Act(Kind.EFFECT, effect=f"delay: {min(30, max(1, int(argument)))}"), source)
        elif word in self.cf.words("smtpd_restriction_classes"):
            yield from self._steps(self.cf.words(word), depth + 1)
        elif word not in IGNORED:
            yield Step("", Act(Kind.COMMENT, text="nothing here does that"), source)

    def _has_owner(self) -> str:
        """The condition of senders that smtpd_sender_login_maps names."""
        found: list[str] = []
        for source in self.cf.words("smtpd_sender_login_maps"):
            try:
                table = read_table(self.cf, source)
            except Unreadable as error:
                self.drafts.remark(str(error))
                continue
            owned = replace(table, entries=tuple(replace(entry, result="owned") for entry in table.entries))
            exactly = Manner(False, self.manner.delimiters)
            found += [when for when, _ in results_of(owned, "sender", "sender logins", self.drafts, exactly)]
        return f"({disjunction(found)})" if found else "(sender.is_local and sender.exists)"

    def _list(self, function: str, first: tuple[str, ...], argument: str, source: str, act: Act) -> Step:
        zone, _, answers = argument.partition("=")
        arguments = [*first, zone]
        if answers:
            try:
                arguments.append(answers_of(answers))
            except ValueError as error:
                return Step("", Act(Kind.COMMENT, text=str(error)), source)
        return Step(f"{function}({', '.join(map(json.dumps, arguments))})", act, source)

    def _table(self, argument: str, subject: str, source: str, depth: int) -> Iterator[Step]:
        try:
            table = read_table(self.cf, argument)
        except Unreadable as error:
            yield Step("", Act(Kind.COMMENT, text=str(error)), source)
            return
        name = f"{subject} {re.split(r'[/:{]', argument.rstrip('}'))[-1].strip()}"[:60]
        for condition, result in results_of(table, subject, name, self.drafts, self.manner):
            act = act_of(result, self.cf)
            shown = f"{source}: {result}"
            if act.kind is Kind.RESTRICTIONS:
                # What the restrictions permit, they permit for these keys only, and for the whole list.
                for step in self._steps(list(split(act.text)), depth + 1):
                    yield replace(step, when=conjunction(condition, step.when), source=f"{shown}: {step.source}")
            elif act.kind is not Kind.NOTHING:
                yield Step(condition, act, shown)


_LISTED = Act(Kind.REJECT, "554 5.7.1 Service unavailable; listed", code_name="maps_rbl_reject_code")


def answers_of(text: str) -> str:
    """`127.0.[0..255].[1..3;7]` as our filter has it. Raises ValueError."""
    octets = []
    for part in re.split(r"\.(?![^\[]*\])", text):
        choices = [choice.replace("..", "-") for choice in part.strip("[]").split(";")]
        octets.append(choices)
    found = [""]
    for number, choices in enumerate(octets):
        found = [f"{before}{'.' if number else ''}{choice}" for before in found for choice in choices]
    answers = ",".join(found)
    AnswerFilter(answers)
    return answers


def _action_of(act: Act) -> tuple[str, tuple[str, ...]]:
    match act.kind:
        case Kind.REJECT:
            return "reject", ()
        case Kind.DEFER:
            return "defer", ()
        case Kind.HOLD:
            return "note", (f"mark: {HOLD}",)
        case Kind.DISCARD:
            return "discard", ()
        case Kind.DEFER_IF_PERMIT:
            return "note", (f"mark: {DEFER_IF_PERMIT}",)
        case Kind.DEFER_IF_REJECT:
            return "note", (f"mark: {DEFER_IF_REJECT}",)
        case Kind.EFFECT:
            return "note", (act.effect,)
        case _:
            return "note", ()


def _stage_of(condition: str) -> str:
    if "recipient" in condition:
        return "recipient"
    if "sender" in condition:
        return "sender"
    return "helo" if "helo" in condition else "connect"
