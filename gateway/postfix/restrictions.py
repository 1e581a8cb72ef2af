"""smtpd_*_restrictions as drafts of rules (postconf(5), SMTPD_ACCESS_README).

Postfix tries one list after the other, all of them at RCPT; a permit ends its list, a refusal ends all. Here each
list goes to the stage where the last of its facts is known. What an earlier permit of a list spares from its later
restrictions stands in their conditions.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.core.errors import ConfigError
from gateway.policy.listanswers import AnswerFilter, check_list
from gateway.postfix.access import Manner, results_of
from gateway.postfix.actions import Act, Kind, act_of
from gateway.postfix.drafts import STAGES, Draft, Drafts, conjunction, disjunction, negation
from gateway.postfix.facts import CONDITIONS, HAS_OWNER, IGNORED, NULL_MX, SOURCE_ROUTED, Refusal, with_code
from gateway.postfix.maincf import MainCf, split
from gateway.postfix.tables import Unreadable, is_table, read_table

MAX_STEPS = 20_000
MAX_ANSWERS = 500  # of one DNS list
_PLAIN_PERMITS = frozenset({"client.trusted", "auth.user"})
_SUBJECT_OF = {
    "smtpd_client_restrictions": "client",
    "smtpd_helo_restrictions": "helo",
    "smtpd_sender_restrictions": "sender",
}
_OLD_NAMES = {
    "reject_unknown_client": "reject_unknown_client_hostname",
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
    "reject_unknown_hostname": "reject_unknown_helo_hostname",
    "reject_unknown_address": "reject_unknown_sender_domain",
    "reject_sender_login_mismatch": "reject_sender_login_mismatch",
    "check_relay_domains": "reject_unauth_destination",
}
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
    unknown_matches: bool = False
    decided: str = ""  # the mark that says that a table has answered


@dataclass
class Translation:
    """uses_probe: some restriction wants next hops asked."""

    cf: MainCf
    drafts: Drafts
    manner: Manner
    unlisted: Refusal  # what refuses recipients that do not exist
    uses_probe: bool = False
    _is_soft: bool = False  # DEFER_IF_REJECT may have come before
    _count: int = 0

    # --- lists to stages ------------------------------------------------------------------------------------------

    def run(self) -> None:
        stage = STAGES[0]
        if not self.cf.words("smtpd_relay_restrictions"):
            self.drafts.remark(
                "smtpd_relay_restrictions is empty: Postfix relays for whomever smtpd_recipient_restrictions permits"
                " before reject_unauth_destination; here the relay guard refuses that to strangers"
            )
        for name, natural in LISTS.items():
            steps = list(self._steps(self.cf.words(name), _SUBJECT_OF.get(name, "recipient")))
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
        """What a permit spares stands in the conditions after it: plain permits themselves, others as a mark. Where a
        look-up for a permit fails there is no mark, and what follows holds.
        """
        permits: list[str] = []
        for step in steps:
            spared = disjunction(permits)
            when = conjunction(negation(spared) if spared else "", step.when)
            if step.act.kind is Kind.PERMIT and not step.is_monitor:
                if step.when in ("", "true"):
                    return  # nothing after it is reached
                if step.when in _PLAIN_PERMITS:
                    permits.append(step.when)
                    continue
                mark = self.drafts.new_mark("permit")
                self.drafts.add(stage, Draft("note", f"{step.source}: permits", when, effects=(f"mark: {mark}",)))
                permits.append(f'"{mark}" in marks')
                continue
            self._rule(stage, when, step)
            self._is_soft = self._is_soft or step.act.kind is Kind.DEFER_IF_REJECT

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
        if stage == "message" and act.kind in (Kind.HOLD, Kind.DEFER_IF_PERMIT):
            # No later restriction is waited for.
            action, effects = ("hold", ()) if act.kind is Kind.HOLD else ("defer", ())
        effects = (*effects, *((f"mark: {step.decided}",) if step.decided and action == "note" else ()))
        unknown = "match" if step.unknown_matches else ""
        self.drafts.add(
            stage, Draft(action, step.source, when, act.reply, _one_mark(effects), step.is_monitor, unknown)
        )
        if act.defers_unknown and not step.is_monitor:
            # As Postfix does: a look-up that failed defers unless something else refuses.
            mark = (f"mark: {DEFER_IF_PERMIT}",)
            self.drafts.add(stage, Draft("note", f"{step.source}: cannot be known", when, "", mark, on_unknown="match"))

    # --- restrictions to steps ------------------------------------------------------------------------------------

    def _steps(self, words: list[str], subject: str, within: tuple[str, ...] = ()) -> Iterator[Step]:
        """subject: what a table without a name of its own is asked for; within: the classes that lead here."""
        monitors = False
        at = 0
        while at < len(words):
            self._count += 1
            if self._count > MAX_STEPS:
                raise ConfigError(f"main.cf: over {MAX_STEPS} restrictions")
            word = words[at].strip("{} ") if words[at].startswith("{") else words[at]
            at += 1
            if word.lower() == "warn_if_reject":
                monitors = True
                continue
            argument = ""
            if " " in word:
                word, _, argument = word.partition(" ")
            elif _TAKES_WORD.fullmatch(word.lower()) and at < len(words):
                argument = words[at]
                at += 1
            elif is_table(word):
                word, argument = f"check_{subject}_access", word
            name = (
                word
                if word in self.cf.words("smtpd_restriction_classes")
                else _OLD_NAMES.get(word.lower(), word.lower())
            )
            for step in self._restriction(name, argument.strip(), subject, within):
                yield replace(step, is_monitor=True) if monitors else step
            monitors = False

    def _restriction(self, word: str, argument: str, subject: str, within: tuple[str, ...]) -> Iterator[Step]:
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
            yield from self._table(argument, word[6:-7], source, within)
        elif word == "reject_rbl_client":
            yield self._list("dnsbl", (), argument, source, with_code(_LISTED, self.cf))
        elif word == "permit_dnswl_client":
            yield self._list("dnswl", (), argument, source, Act(Kind.PERMIT))
        elif word.startswith("reject_rhsbl_") and word[13:] in _RHSBL:
            yield self._list("rhsbl", (_RHSBL[word[13:]],), argument, source, with_code(_LISTED, self.cf))
        elif word == "sleep" and argument.isascii() and argument.isdigit() and len(argument) < 6:
            yield Step("", Act(Kind.EFFECT, effect=f"delay: {min(30, max(1, int(argument)))}"), source)
        elif word in self.cf.words("smtpd_restriction_classes"):
            if word in within:
                self.drafts.remark(f"smtpd_restriction_classes: {word} leads to itself")
            else:
                yield from self._steps(self.cf.words(word), subject, (*within, word))
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
            found += [each.when for each in results_of(owned, "sender", "sender logins", self.drafts, exactly)]
        return f"({disjunction(found)})" if found else "(sender.is_local and sender.exists)"

    def _list(self, function: str, first: tuple[str, ...], argument: str, source: str, act: Act) -> Step:
        zone, _, answers = argument.partition("=")
        arguments = [*first, zone]
        try:
            check_list(zone)
            arguments += [answers_of(answers)] if answers else []
        except ValueError as error:
            return Step("", Act(Kind.COMMENT, text=str(error)), source)
        return Step(f"{function}({', '.join(map(json.dumps, arguments))})", act, source)

    def _table(self, argument: str, subject: str, source: str, within: tuple[str, ...]) -> Iterator[Step]:
        """The first answer counts: each that goes on gives a mark, and the table's later ones hold without it."""
        try:
            table = read_table(self.cf, argument)
        except Unreadable as error:
            yield Step("", Act(Kind.COMMENT, text=str(error)), source)
            return
        name = f"{subject} {re.split(r'[/:{]', argument.rstrip('}'))[-1].strip()}"[:60]
        mark = self.drafts.new_mark("answered")
        is_answered = ""
        for found in results_of(table, subject, name, self.drafts, self.manner):
            act = act_of(found.result, self.cf)
            when = conjunction(is_answered, found.when)
            shown = f"{source}: {found.result}"
            if act.kind is Kind.RESTRICTIONS:
                # What the restrictions permit, they permit for these keys only, and for the whole list.
                for step in self._steps(list(split(act.text)), subject, within):
                    yield replace(step, when=conjunction(when, step.when), source=f"{shown}: {step.source}")
                act = Act(Kind.NOTHING)
            if act.kind in (Kind.REJECT, Kind.DEFER, Kind.DISCARD, Kind.PERMIT, Kind.COMMENT):
                yield Step(when, act, shown, unknown_matches=found.unknown_matches)
            else:
                yield Step(when, act, shown, unknown_matches=found.unknown_matches, decided=mark)
                is_answered = f'not ("{mark}" in marks)'


_LISTED = Act(Kind.REJECT, "554 5.7.1 Service unavailable; listed", code_name="maps_rbl_reject_code")


def answers_of(text: str) -> str:
    """`127.0.[0..255].[1..3;7]` as our filter has it. Raises ValueError."""
    octets = []
    for part in re.split(r"\.(?![^\[]*\])", text):
        choices = [choice.replace("..", "-") for choice in part.strip("[]").split(";")]
        octets.append(choices)
    found = [""]
    for number, choices in enumerate(octets):
        if len(found) * len(choices) > MAX_ANSWERS:
            raise ValueError(f"over {MAX_ANSWERS} answers")
        found = [f"{before}{'.' if number else ''}{choice}" for before in found for choice in choices]
    answers = ",".join(found)
    AnswerFilter(answers)
    return answers


def _one_mark(effects: tuple[str, ...]) -> tuple[str, ...]:
    """`mark:` stands once in a mapping."""
    marks = [each.removeprefix("mark: ") for each in effects if each.startswith("mark: ")]
    others = tuple(each for each in effects if not each.startswith("mark: "))
    return effects if len(marks) < 2 else (*others, f"mark: [{', '.join(marks)}]")


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
