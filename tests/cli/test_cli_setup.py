"""`init`, `check`, help, version and exit codes."""

import re
import ssl

import pytest

from tests.support.cli import Cli


def test_init_writes_a_folder_that_check_likes(bare: Cli) -> None:
    done = bare("init", "--domain", "Example.org", "--non-interactive").expect(0)
    assert re.search(r"First account: postmaster@example\.org  password: \S{12,}", done.stdout)
    for record in (
        "mail.example.org. IN A <this host's IPv4 address>",
        "example.org. IN MX 10 mail.example.org.",
        "v=spf1 mx -all",
        "_dmarc.example.org.",
    ):
        assert record in done.stdout
    modes = {
        name: (bare.folder / name).stat().st_mode & 0o777 for name in ("tls/key.pem", "data/accounts.db", "data", "tls")
    }
    assert modes["tls/key.pem"] == modes["data/accounts.db"] == 0o600
    assert modes["data"] & 0o077 == modes["tls"] & 0o077 == 0
    text = (bare.folder / "smarthost.toml").read_text()
    assert '[domains."example.org"]' in text
    assert 'hostname = "mail.example.org"' in text
    checked = bare("check").expect(0)
    assert "0 errors" in checked.stdout
    assert "self-signed" in checked.stderr
    assert ssl.PEM_cert_to_DER_cert((bare.folder / "tls" / "cert.pem").read_text())


def test_init_takes_a_folder_and_a_host_name_and_changes_nothing_twice(bare: Cli) -> None:
    arguments = ("init", "gate", "--domain", "bücher.example", "--hostname", "MX.bücher.example", "--non-interactive")
    bare(*arguments).expect(0)
    text = (bare.folder / "gate" / "smarthost.toml").read_text()
    assert 'hostname = "mx.xn--bcher-kva.example"' in text
    again = bare(*arguments).expect(1)
    assert "exists already; nothing was changed" in again.stderr
    assert (bare.folder / "gate" / "smarthost.toml").read_text() == text
    bare("check", "-c", "gate/smarthost.toml").expect(0)


def test_init_asks_for_the_first_account(bare: Cli) -> None:
    done = bare("init", "--domain", "example.org", stdin="boss@example.org\nlong enough\n")
    done.expect(0)
    assert "long enough" not in done.stdout
    assert "boss@example.org" in bare("user", "list").expect(0).stdout


@pytest.mark.parametrize(
    "answer",
    [
        "boss@elsewhere.example\nlong enough\n",
        "boss\nlong enough\n",
        "boss@example.org\nx\n",
        "a/b@example.org\nlong enough\n",
    ],
)
def test_init_takes_no_account_that_user_add_would_refuse(bare: Cli, answer: str) -> None:
    done = bare("init", "--domain", "example.org", stdin=answer)
    assert done.code in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("init",), 2),
        (("init", "--domain", "a b"), 2),
        (("init", "--domain", "example.org", "--hostname", "-x"), 2),
        (("init", "--domain", "[192.0.2.1]", "--non-interactive"), 2),
        (("nosuch",), 2),
        (("check", "--nosuch"), 2),
        (("user",), 2),
        (("user", "nosuch"), 2),
        (("run", "--role", "nosuch"), 2),
        (("run", "--role", ""), 2),
        (("check",), 1),
        (("user", "list"), 1),
        (("queue", "list"), 1),
        (("trace", "x"), 1),
        (("run",), 1),
        (("--version",), 0),
        (("--help",), 0),
        (("-h",), 0),
    ],
)
def test_exit_codes_in_an_empty_folder(bare: Cli, argv: tuple[str, ...], code: int) -> None:
    done = bare(*argv).expect(code)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout or done.stderr
    assert not (bare.folder / "smarthost.toml").exists()


def test_help_shows_every_command_under_a_title(bare: Cli) -> None:
    text = bare("--help").expect(0).stdout
    assert re.findall(r"^(\S.*):$", text, re.MULTILINE)[-7:] == [
        "Set up and run",
        "Policies",
        "People",
        "Domains",
        "Mail on its way",
        "Mail that is here",
        "The spam filter",
    ]
    for name in ("init", "check", "run", "user", "alias", "queue", "trace"):
        assert re.search(rf"^  {name}  +\S", text, re.MULTILINE)


def test_check_names_what_is_wrong_and_says_no(cli: Cli) -> None:
    (cli.folder / "tls" / "key.pem").chmod(0o644)
    (cli.folder / "policies" / "10-connect.yaml").write_text(
        "stage: connect\nrules:\n  - reject: x\n    when: client.prt\n"
    )
    done = cli("check").expect(1)
    assert "tls/key.pem: mode 0644, wanted is 0600" in done.stderr
    assert "policies/10-connect.yaml:4:11: unknown fact `client.prt`. Did you mean `client.port`?" in done.stderr
    assert "2 errors" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[nosuch]\n", "nosuch: unknown key"),
        ('[routes.default]\nhost = "smtp:x:25"\nusername = "u"\npassword_file = "secret"\n', "secret: No such file"),
        ("[tls\n", "smarthost.toml"),
    ],
)
def test_check_says_no_to_a_wrong_file(cli: Cli, change: str, message: str) -> None:
    path = cli.folder / "smarthost.toml"
    path.write_text(path.read_text() + change)
    done = cli("check").expect(1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_no_to_a_certificate_that_is_none(cli: Cli) -> None:
    (cli.folder / "tls" / "cert.pem").write_text("nonsense")
    assert "tls: " in cli("check").expect(1).stderr
    (cli.folder / "tls" / "cert.pem").unlink()
    assert "cert.pem" in cli("check").expect(1).stderr


def test_check_warns_and_says_yes(cli: Cli) -> None:
    path = cli.folder / "smarthost.toml"
    path.write_text(path.read_text().replace('"mail.example.org"', '"mail"').replace('[domains."example.org"]', ""))
    (cli.folder / "policies" / "lists" / "spare.words").write_text("x\n")
    done = cli("check").expect(0)
    for warning in ("has no dot", "domains: none in smarthost.toml", "no rule uses this list"):
        assert warning in done.stderr
    assert "0 errors, 4 warnings" in done.stdout


def test_the_environment_overrides_and_names_the_config(cli: Cli) -> None:
    (cli.folder / "smarthost.toml").rename(cli.folder / "other.toml")
    cli("check").expect(1)
    cli("check", env={"SMARTHOST_CONFIG": "other.toml"}).expect(0)
    assert (
        "no key limits.nosuch"
        in cli("check", "-c", "other.toml", env={"SMARTHOST_LIMITS__NOSUCH": "1"}).expect(1).stderr
    )
