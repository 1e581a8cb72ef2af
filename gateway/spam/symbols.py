"""What of a message's structure people should hear, as words for rules and traces. The model weighs it."""

from collections.abc import Iterable

SYMBOLS = {
    "linkmismatch": "LINK_SHOWS_ANOTHER_HOST",
    "links:ip": "LINK_TO_ADDRESS",
    "links:short": "LINK_SHORTENED",
    "from:nameaddr": "FROM_NAME_IS_ANOTHER_ADDRESS",
    "from:nodomain": "FROM_WITHOUT_DOMAIN",
    "replyto:free": "REPLY_TO_FREE_MAIL",
    "replyto:other": "REPLY_TO_ANOTHER_DOMAIN",
    "to:undisclosed": "TO_NOBODY",
    "to:absent": "TO_ABSENT",
    "mid:bad": "MESSAGE_ID_BROKEN",
    "mid:none": "MESSAGE_ID_ABSENT",
    "date:none": "DATE_ABSENT",
    "date:oddzone": "DATE_ODD_ZONE",
    "subject:caps": "SUBJECT_CAPITALS",
    "subject:empty": "SUBJECT_EMPTY",
    "subject:invisible": "SUBJECT_INVISIBLE_LETTERS",
    "invisible": "TEXT_INVISIBLE_LETTERS",
    "mixedscript": "TEXT_MIXED_SCRIPTS",
    "html:hidden": "HTML_HIDDEN_TEXT",
    "html:tiny": "HTML_TINY_TEXT",
    "html:form": "HTML_FORM",
    "html:script": "HTML_SCRIPT",
    "htmlonly": "HTML_ONLY",
    "imageonly": "HTML_IMAGE_ONLY",
    "b64ascii": "BASE64_OF_ASCII",
    "host:punycode": "LINK_TO_INTERNATIONAL_NAME",
}
ALL = (*SYMBOLS.values(), "GTUBE")


def symbols_of(signs: Iterable[str]) -> tuple[str, ...]:
    return tuple(SYMBOLS[sign] for sign in signs if sign in SYMBOLS)
