"""postscreen's tests (POSTSCREEN_README) as rules at connect: its access list, DNS lists by weight, pregreet."""

import json
import re

from gateway.policy.listanswers import check_list
from gateway.postfix.access import Manner, results_of
from gateway.postfix.actions import Kind, act_of
from gateway.postfix.drafts import Draft, Drafts, conjunction, disjunction, negation
from gateway.postfix.maincf import MainCf
from gateway.postfix.restrictions import answers_of
from gateway.postfix.tables import Unreadable, read_table

_SITE = re.compile(r"(?P<zone>[^=*]+)(?:=(?P<answers>[^*]+))?(?:\*(?P<weight>-?\d+))?")
_ACTS = ("enforce", "drop")


def add_postscreen(cf: MainCf, drafts: Drafts) -> None:
    if not any(name.startswith("postscreen_") and name in cf for name in _SETTINGS):
        return
    spared = _access_list(cf, drafts)
    but = negation(spared) if spared else ""
    if cf.get("postscreen_greet_action") in _ACTS:
        when = conjunction(but, "client.early_talker")
        drafts.add("connect", Draft("reject", "postscreen: pregreet", when, "550 5.5.1 Protocol error"))
    sites = cf.words("postscreen_dnsbl_sites")
    if not sites or cf.get("postscreen_dnsbl_action") not in _ACTS:
        return
    for text in sites:
        match = _SITE.fullmatch(text)
        if match is None:
            drafts.remark(f"postscreen_dnsbl_sites: {text}")
            continue
        weight = int(match["weight"] or 1)
        function = "dnswl" if weight < 0 else "dnsbl"
        try:
            check_list(match["zone"])
            arguments = [match["zone"], *([answers_of(match["answers"])] if match["answers"] else [])]
        except ValueError as error:
            drafts.remark(f"postscreen_dnsbl_sites: {text}: {error}")
            continue
        when = conjunction(but, f"{function}({', '.join(map(json.dumps, arguments))})")
        drafts.add("connect", Draft("note", f"postscreen: {text}", when, effects=(f"score: {weight}",)))
    threshold = cf.get("postscreen_dnsbl_threshold") or "1"
    if not re.fullmatch("[0-9]{1,6}", threshold):
        drafts.remark(f"postscreen_dnsbl_threshold: {threshold} is no number")
        return
    when = conjunction(but, f"score >= {threshold}")
    drafts.add("connect", Draft("reject", "postscreen: DNS lists", when, "550 5.7.1 Service unavailable; listed"))


_SETTINGS = ("postscreen_access_list", "postscreen_greet_action", "postscreen_dnsbl_action", "postscreen_dnsbl_sites")


def _access_list(cf: MainCf, drafts: Drafts) -> str:
    """The condition of those that no test is made of."""
    spared: list[str] = []
    denies = [cf.get(name) in _ACTS for name in ("postscreen_denylist_action", "postscreen_blacklist_action")]
    for word in cf.words("postscreen_access_list") or ["permit_mynetworks"]:
        if word == "permit_mynetworks":
            spared.append("client.trusted")
            continue
        try:
            table = read_table(cf, word)
        except Unreadable as error:
            drafts.remark(str(error))
            continue
        answered = drafts.new_mark("postscreen")
        is_answered = ""
        for found in results_of(table, "client", "postscreen access", drafts, Manner(False, "")):
            act = act_of(found.result, cf)
            when = conjunction(negation(disjunction(spared)) if spared else "", is_answered, found.when)
            if act.kind is Kind.PERMIT:
                mark = drafts.new_mark("postscreen")
                drafts.add("connect", Draft("note", "postscreen: permits", when, effects=(f"mark: {mark}",)))
                spared.append(f'"{mark}" in marks')
            elif act.kind is Kind.REJECT and any(denies):
                reply = "550 5.3.2 Service currently unavailable"
                drafts.add("connect", Draft("reject", "postscreen: access list", when, reply))
            else:
                shown = f"postscreen: {found.result}"
                drafts.add("connect", Draft("note", shown, when, effects=(f"mark: {answered}",)))
                is_answered = f'not ("{answered}" in marks)'
    return disjunction(spared)
