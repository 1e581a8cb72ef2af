"""JSON Schema (2020-12) of policy files and of their tests, for editors. From the catalogue, so it knows every fact."""

from gateway.core.verdict import DISPOSING, REFUSING, Action, Stage
from gateway.policy import effects
from gateway.policy.catalogue import ATTACHMENT, FACTS
from gateway.policy.rules import OnUnknown
from gateway.policy.values import Kind

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: dict[str, object] = {"type": "string"}
_MEANING = {
    Action.ACCEPT: "ends this stage",
    Action.REJECT: "refuses for good (5xx)",
    Action.DEFER: "refuses for now (4xx)",
    Action.DISCARD: "answers 250 and drops the message",
    Action.QUARANTINE: "answers 250 and keeps the message for release",
    Action.HOLD: "answers 250 and queues the message until it is released",
    Action.NOTE: "decides nothing",
}


def rules_schema() -> dict[str, object]:
    rule: dict[str, object] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{
                action.value: {"type": "string", "description": f"{_MEANING[action]}; the rule's name"}
                for action in Action
            },
            "when": {"type": "string", "description": f"a condition over facts: {', '.join(FACTS)}"},
            "reply": {"type": "string", "pattern": r"^[45]\d\d( [45]\.\d{1,3}\.\d{1,3})? .+"},
            "do": {"type": "object", "additionalProperties": False, "properties": _effects()},
            "mode": {"enum": ["enforce", "monitor"]},
            "on_unknown": {"enum": [way.value for way in OnUnknown]},
        },
        "oneOf": [{"required": [action.value]} for action in Action],
    }
    return {
        "$schema": _DRAFT,
        "title": "Smarthost policy file",
        "type": "object",
        "additionalProperties": False,
        "required": ["stage", "rules"],
        "properties": {"stage": {"enum": [stage.value for stage in Stage]}, "rules": {"type": "array", "items": rule}},
    }


def _effects() -> dict[str, object]:
    found: dict[str, object] = dict.fromkeys(effects.KEYS, _TEXT)
    found["score"] = {"type": ["number", "string"]}
    found["mark"] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
    found["require_tls"] = {"enum": [True, "verified"]}
    found["self_release"] = {"const": True}
    found["delay"] = {"type": "number", "exclusiveMinimum": 0, "maximum": effects.MAX_DELAY_S}
    return found


def tests_schema() -> dict[str, object]:
    texts: dict[str, object] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
    around = {"domains": texts, "relay_domains": texts, "trusted": texts}
    outcomes = [Action.ACCEPT, *sorted(REFUSING | DISPOSING)]
    expect: dict[str, object] = {
        "anyOf": [
            {"enum": [action.value for action in outcomes]},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **{action.value: texts if action is Action.NOTE else _TEXT for action in Action},
                    "score": {"type": ["number", "string"]},
                    "marks": texts,
                    "reply": _TEXT,
                    "effects": texts,
                    "stage": {"enum": [stage.value for stage in Stage]},
                },
            },
        ]
    }
    case: dict[str, object] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["test", "expect"],
        "properties": {
            "test": _TEXT,
            "given": {
                "type": "object",
                "properties": {"message": _TEXT, **{name: _given(fact.kind) for name, fact in FACTS.items()}},
            },
            "expect": expect,
            **around,
        },
    }
    cases: dict[str, object] = {"type": "array", "items": case}
    whole: dict[str, object] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["tests"],
        "properties": {**around, "tests": cases},
    }
    return {"$schema": _DRAFT, "title": "Tests of a Smarthost policy", "anyOf": [cases, whole]}


def _given(kind: Kind) -> dict[str, object]:
    unknown = {"const": "unknown"}
    match kind:
        case Kind.BOOL:
            return {"anyOf": [{"type": "boolean"}, unknown]}
        case Kind.NUMBER:
            return {"type": ["number", "string"]}
        case Kind.LIST:
            return {"anyOf": [{"type": "array", "items": _TEXT}, unknown]}
        case Kind.RECORDS:
            fields = {name: _given(field.kind) for name, field in ATTACHMENT.items()}
            record = {"type": "object", "additionalProperties": False, "properties": fields}
            return {"anyOf": [{"type": "array", "items": record}, unknown]}
        case _:
            return _TEXT
