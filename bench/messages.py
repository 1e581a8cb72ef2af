"""Messages for the benchmark of the store: each follows from its number alone, and looks like what people get.

Seven in ten are one text, two have a text and an HTML form, one has an attachment; one subject in five is not ASCII
and stands in encoded words. Line ends are CRLF.
"""

import base64
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from quopri import encodestring

START = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)
SPACING = timedelta(minutes=3)
RARE = "zwieback"  # in the text of one message in a hundred, and in no header
TOPIC = "invoice"  # in the subject of one message in twenty

_WORDS = (
    "the meeting about next quarter has been moved to Thursday please find below a summary of what we agreed and let"
    " me know by Friday if anything is missing the delivery to our second site takes two more weeks since customs want"
    " another form for the spare parts we have asked the supplier and will tell you as soon as they answer thank you"
    " for the draft it reads well but for the third chapter where figures of last year are still in the table could"
    " somebody look after it before it goes to print best wishes from all of us and a good start into the new week"
).split()
_NAMES = (
    ("Anna", "Schmidt"), ("Jean", "Lefèvre"), ("Maria", "García"), ("Tom", "Baker"), ("Olga", "Ivanova"),
    ("Jürgen", "Müller"), ("Sara", "Lindqvist"), ("Paul", "O'Neill"), ("Ewa", "Kowalska"), ("Kenji", "Tanaka"),
)  # fmt: skip
_PLAIN = ("Minutes of Monday", "Re: spare parts", "Your order", "Lunch on Thursday?", "Fwd: draft of chapter 3")
_OTHER = (
    "Grüße aus München",
    "Réunion de l'équipe à Orléans",
    "Встреча в четверг",
    "来週の会議について",
    "Año nuevo: €",
)


def date_of(number: int) -> datetime:
    """When it came; later with each number."""
    return START + number * SPACING


def is_seen(number: int) -> bool:
    return number % 10 != 0


def message(number: int, size: int = 5000) -> bytes:
    """size: about so many octets."""
    chance = random.Random(number)
    header = _header(number, chance)
    rest = max(200, size - len(header) - 150)
    kind = number % 10
    if kind in (3, 7):
        entity = _two_forms(number, chance, rest)
    elif kind == 5:
        entity = _with_attachment(number, chance, rest)
    else:
        entity = _one_text(number, chance, rest)
    return (header + entity).replace(b"\n", b"\r\n")


def _header(number: int, chance: random.Random) -> bytes:
    date = format_datetime(date_of(number))
    (first, last), (to_first, to_last) = chance.choice(_NAMES), chance.choice(_NAMES)
    host = f"mail{chance.randrange(40)}.sender{chance.randrange(300)}.test"
    author = f"{_word(f'{first} {last}')} <{_ascii(first)}.{_ascii(last)}@{host.partition('.')[2]}>"
    lines = [
        f"Received: from {host} ({host} [192.0.2.{chance.randrange(1, 255)}])\n\tby mx.example.org (Postfix) with"
        f" ESMTPS id {_token(chance, 12)}\n\tfor <alice@example.org>; {date}",
        f"Received: from desk{chance.randrange(90)}.local (unknown [198.51.100.{chance.randrange(1, 255)}])\n\t(using"
        " TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\n\tby"
        f" {host} (Postfix) with ESMTPSA id {_token(chance, 12)};\n\t{date}",
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={host.partition('.')[2]};\n\ts=s1; t=1736150400;"
        f" bh={_token(chance, 43)}=;\n\th=From:To:Subject:Date:Message-ID:From;\n\tb={_token(chance, 70)}\n\t"
        f" {_token(chance, 72)}\n\t {_token(chance, 72)}==",
        f"Authentication-Results: mx.example.org; dkim=pass header.d={host.partition('.')[2]};\n\tspf=pass"
        f" smtp.mailfrom={host.partition('.')[2]}; dmarc=pass",
        f"From: {author}",
        f"To: {_word(f'{to_first} {to_last}')} <alice@example.org>" + _more_recipients(chance),
        f"Subject: {_subject(number, chance)}",
        f"Date: {date}",
        f"Message-ID: <{number}.{_token(chance, 16)}@{host}>",
    ]
    if chance.random() < 0.2:
        lines.append(f"Cc: team@example.org, {_word('Bücher, GmbH')} <office@books.test>")
    if chance.random() < 0.4:
        thread = [f"<{chance.randrange(max(1, number))}.{_token(chance, 16)}@{host}>" for _ in range(3)]
        lines += ["In-Reply-To: " + thread[-1], "References: " + "\n ".join(thread)]
    if chance.random() < 0.15:
        lines += ["List-Id: The team <team.example.org>", "List-Unsubscribe: <mailto:leave@example.org>"]
        lines += ["Precedence: list", "Reply-To: team@example.org"]
    if chance.random() < 0.1:
        lines.append("X-Priority: 3")
    lines += ["User-Agent: Mozilla Thunderbird", "MIME-Version: 1.0"]
    return "\n".join(lines).encode("ascii") + b"\n"


def _more_recipients(chance: random.Random) -> str:
    found = [chance.choice(_NAMES) for _ in range(chance.choice((0, 0, 0, 1, 4)))]
    return "".join(f",\n {_word(f'{first} {last}')} <{_ascii(first)}@example.org>" for first, last in found)


def _subject(number: int, chance: random.Random) -> str:
    if number % 20 == 4:
        return f"Re: {TOPIC} {100_000 + number} of {date_of(number):%d.%m.%Y}"
    if number % 5 == 2:
        return _word(f"{chance.choice(_OTHER)} {number}", always=True)
    return f"{chance.choice(_PLAIN)} [{number}]"


def _word(text: str, *, always: bool = False) -> str:
    """An encoded word where it must be one."""
    if text.isascii() and not always:
        return f'"{text}"' if set(text) & set(",'") else text
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def _ascii(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isalpha())


def _token(chance: random.Random, size: int) -> str:
    return base64.b64encode(chance.randbytes(size)).decode().replace("/", "x").replace("+", "y")[:size]


def _text(number: int, chance: random.Random, size: int) -> str:
    lines: list[str] = ["Hello,", ""]
    total, line = 8, ""
    while total < size:
        word = chance.choice(_WORDS)
        if len(line) + len(word) > 71:
            lines.append(line)
            total += len(line) + 2
            line = word if chance.random() < 0.9 else f"\n{word}"
        else:
            line += f" {word}" if line else word
    if number % 100 == 42:
        lines.insert(len(lines) // 2, f"And do not forget the {RARE}.")
    return "\n".join([*lines, "", "-- ", "Kind regards", ""])


def _one_text(number: int, chance: random.Random, size: int) -> bytes:
    text = _text(number, chance, size)
    if number % 5 == 1:
        text = text.replace("Kind regards", "Viele Grüße, für das Büro")
        return (
            b"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\n\n"
            + encodestring(text.encode())
        )
    return b"Content-Type: text/plain; charset=US-ASCII; format=flowed\nContent-Transfer-Encoding: 7bit\n\n" + (
        text.encode("ascii")
    )


def _html(text: str) -> bytes:
    paragraphs = "".join(f"<p>{each}</p>\n" for each in text.split("\n\n"))
    return encodestring(f'<html><body style="font-family: sans-serif">\n{paragraphs}</body></html>\n'.encode())


def _two_forms(number: int, chance: random.Random, size: int) -> bytes:
    mark, text = f"=_{_token(chance, 20)}", _text(number, chance, size * 2 // 5)
    return b"".join(
        (
            f'Content-Type: multipart/alternative;\n boundary="{mark}"\n\n--{mark}\n'.encode(),
            b"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n",
            text.encode(),
            f"\n--{mark}\nContent-Type: text/html; charset=UTF-8\n".encode(),
            b"Content-Transfer-Encoding: quoted-printable\n\n",
            _html(text),
            f"\n--{mark}--\n".encode(),
        )
    )


def _with_attachment(number: int, chance: random.Random, size: int) -> bytes:
    mark, text = f"=_{_token(chance, 20)}", _text(number, chance, size // 3)
    name = f"report-{number}.pdf"
    octets = base64.encodebytes(b"%PDF-1.4\n" + chance.randbytes(size * 2 // 5))
    return b"".join(
        (
            f'Content-Type: multipart/mixed; boundary="{mark}"\n\n'.encode(),
            b"This is a message in several parts.\n\n",
            f"--{mark}\nContent-Type: text/plain; charset=US-ASCII\n\n".encode(),
            text.encode("ascii"),
            f'\n--{mark}\nContent-Type: application/pdf; name="{name}"\nContent-Transfer-Encoding: base64\n'.encode(),
            f'Content-Disposition: attachment; filename="{name}"\n\n'.encode(),
            octets,
            f"\n--{mark}--\n".encode(),
        )
    )
