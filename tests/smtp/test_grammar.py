"""MAIL and RCPT arguments as RFC 5321 4.1.2 writes them, and what is refused."""

import pytest

from gateway.smtp.grammar import GrammarError, encode_xtext, parse_helo, parse_mail, parse_rcpt


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("FROM:<>", ""),
        ("from:<a@b.example>", "a@b.example"),
        ("FROM: <a@b.example>", "a@b.example"),
        ("FROM:<a@B.Example>", "a@b.example"),
        ("FROM:<@relay.example,@two.example:a@b.example>", "a@b.example"),
        ('FROM:<"a b"@c.example>', '"a b"@c.example'),
        ('FROM:<"a>b"@c.example>', '"a>b"@c.example'),
        ('FROM:<"a"@c.example>', "a@c.example"),
        ('FROM:<"a\\"b"@c.example>', '"a\\"b"@c.example'),
        ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("FROM:<a+b=c@d.example>", "a+b=c@d.example"),
    ],
)
def test_a_path_is_read(argument: str, path: str) -> None:
    assert str(parse_mail(argument, esmtp=True).reverse_path) == path


@pytest.mark.parametrize(
    "argument",
    [
        "", "FROM", "FROM:", "FROM:a@b.example", "FROM:<a@b.example", "FROM:a@b.example>", "FROM:<a @b.example>", "FROM:<a@b.example>x",
        "FROM:<a@@b.example>", "FROM:<a@b@c.example>", "FROM:<.a@b.example>", "FROM:<a..b@c.example>", "FROM:<a@b..example>",
        "FROM:<a@-b.example>", "FROM:<a@b.example.>", "FROM:<a\0@b.example>", "FROM:<a\r@b.example>", "FROM:<a\n@b.example>",
        "FROM:<(c)a@b.example>", "FROM:<a@127.0.0.1>", "FROM:<a@[1.2.3]>", "FROM:<a@[1.2.3.4>", "FROM:<a>", "FROM:<a@>", "FROM:<@b.example>",
        'FROM:<"a@b.example>', 'FROM:<"a\x01"@b.example>', "FROM:<ä@b.example>", f"FROM:<{'a' * 250}@b.example>", f"FROM:<a@{'b.' * 130}example>",
        "FROM:<a@b.example> SIZE=x", "FROM:<a@b.example> SIZE=", "FROM:<a@b.example> SIZE=1 SIZE=2", "FROM:<a@b.example> BODY=9BIT",
        "FROM:<a@b.example> NOSUCH=1", "FROM:<a@b.example> RET=SOME", "FROM:<a@b.example> ENVID=+zz", "FROM:<a@b.example> ENVID=a+0Db",
        "FROM:<a@b.example> SMTPUTF8=1", "FROM:<a@b.example> =x", "FROM:<a@b.example> BODY=BINARYMIME", "FROM:<=?utf-8?q?x?=@>",
    ],
)  # fmt: skip
def test_a_breach_is_refused_with_a_reply(argument: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_mail(argument, esmtp=True)
    assert caught.value.reply.is_permanent
    assert caught.value.reply.render().count(b"\r\n") == 1


def test_mail_parameters_keep_their_case_and_are_decoded() -> None:
    mail = parse_mail("FROM:<a@b.example> SIZE=1000 BODY=8bitmime RET=hdrs ENVID=Ab+2Bc AUTH=<> SMTPUTF8", esmtp=True)
    assert (mail.size, mail.body, mail.ret, mail.envid, mail.smtputf8) == (1000, "8BITMIME", "HDRS", "Ab+c", True)


def test_parameters_need_ehlo() -> None:
    with pytest.raises(GrammarError):
        parse_mail("FROM:<a@b.example> SIZE=1", esmtp=False)


def test_an_encoded_word_is_not_decoded() -> None:
    assert str(parse_mail("FROM:<=?utf-8?q?x?=@b.example>", esmtp=True).reverse_path) == "=?utf-8?q?x?=@b.example"


def test_rcpt_with_dsn_parameters() -> None:
    rcpt = parse_rcpt("TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;x+2By@z.example", esmtp=True, smtputf8=False)
    assert rcpt.notify == {"SUCCESS", "DELAY"}
    assert rcpt.orcpt == "rfc822;x+y@z.example"


@pytest.mark.parametrize(
    "parameters", ["NOTIFY=NEVER,FAILURE", "NOTIFY=SOON", "NOTIFY=", "ORCPT=x", "ORCPT=rfc822;a+0Ab", "SIZE=1"]
)
def test_wrong_rcpt_parameters(parameters: str) -> None:
    with pytest.raises(GrammarError):
        parse_rcpt(f"TO:<a@b.example> {parameters}", esmtp=True, smtputf8=False)


@pytest.mark.parametrize("word", ["postmaster", "Postmaster", "POSTMASTER"])
def test_bare_postmaster(word: str) -> None:
    assert parse_rcpt(f"TO:<{word}>", esmtp=True, smtputf8=False).forward_path is None


@pytest.mark.parametrize("argument", ["TO:<>", "TO:<someone>", "TO:<a%b@c.example@d.example>"])
def test_recipients_that_name_nobody(argument: str) -> None:
    with pytest.raises(GrammarError):
        parse_rcpt(argument, esmtp=True, smtputf8=False)


def test_utf8_addresses_need_smtputf8() -> None:
    rcpt = parse_rcpt("TO:<jürgen@bücher.example>", esmtp=True, smtputf8=True)
    assert str(rcpt.forward_path) == "jürgen@xn--bcher-kva.example"
    with pytest.raises(GrammarError):
        parse_rcpt("TO:<j\udcffrgen@b.example>", esmtp=True, smtputf8=True)


@pytest.mark.parametrize("name", ["", " ", "a b", "a\tb", "ä.example", "x" * 256])
def test_helo_names_that_are_refused(name: str) -> None:
    with pytest.raises(GrammarError):
        parse_helo(name)


def test_xtext_encoding() -> None:
    assert encode_xtext("a+b=c d") == "a+2Bb+3Dc+20d"
