"""Starting, draining, privileges, refusing to start, and dying: what an operator sees of the processes."""

import os
import pwd
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.setup import write_certificate
from tests.crash.load import RawClient, make_message
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import LOOPBACK, Daemon, Finished, find_command, run, wait_until

ROLES = {"smtp-0", "smtp-1", "content-0", "content-1", "queue-0", "store-0", "lessons-0", "admin-0"}


def _status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def _is_over(pid: int) -> bool:
    """Ended; a dead one that its adoptive parent has not waited for yet counts as ended."""
    try:
        return _status(pid)["State"][0] in ("Z", "X")
    except (OSError, KeyError):
        return True


def _start_up(gateway: Gateway) -> dict[str, int]:
    gateway.start()
    wait_until(lambda: set(gateway.role_pids()) == ROLES, 20, "all roles")
    return gateway.role_pids()


def _run_once(gateway: Gateway) -> Finished:
    """`smarthost run`, which is expected to end by itself."""
    argv = [sys.executable, "-m", "gateway", "run", "-c", str(gateway.config)]
    return run(argv, timeout=20, cwd=REPOSITORY)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_sigterm_ends_idle_sessions_with_421_and_lets_a_message_in_transfer_finish(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway()
    pids = _start_up(gateway)
    supervisor = gateway.pid
    message = make_message("half")
    with RawClient(gateway.ports["smtp"]) as idle, RawClient(gateway.ports["smtp"]) as busy:
        busy.begin("alice@example.org")
        busy.send(message[: len(message) // 2])
        os.kill(supervisor, signal.SIGTERM)
        assert idle.reply().startswith("421 4.3.2")
        assert idle.reply() == ""
        assert not _is_over(supervisor)
        busy.send(message[len(message) // 2 :] + b".\r\n")
        assert busy.reply().startswith("250 2.0.0 ")
        busy.send(b"NOOP\r\n")
        assert busy.reply()[:3] in ("421", "")
        assert gateway.stop() == 0
    assert [pid for pid in pids.values() if not _is_over(pid)] == []
    gateway.start()
    (received,) = gateway.wait_mails("alice@example.org", 1)
    assert received.endswith(message)


@pytest.mark.long
def test_sigterm_ends_within_the_deadline_though_a_client_never_finishes(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    pids = _start_up(gateway)
    with RawClient(gateway.ports["smtp"]) as client:
        client.begin("alice@example.org")
        client.send(b"Subject: never ends\r\n\r\n")
        # The support class waits 35 s before it kills; a code of 0 says that the gateway ended by itself.
        assert gateway.stop() == 0
    assert [pid for pid in pids.values() if not _is_over(pid)] == []
    assert gateway.mails("alice@example.org") == []


def test_children_end_when_the_supervisor_is_killed_and_a_restart_works_soon(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway()
    pids = _start_up(gateway)
    with RawClient(gateway.ports["smtp"]) as client:
        client.begin("alice@example.org")  # a session that would keep a draining worker
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.stop()
        gateway.start()
        wait_until(lambda: all(_is_over(pid) for pid in pids.values()), 10, "the old children to end")
    wait_until(lambda: set(gateway.role_pids()) == ROLES, 20, "all roles after the restart")
    assert gateway.send("alice@example.org", make_message("after")) == {}
    gateway.wait_mails("alice@example.org", 1)


def test_a_role_that_ends_is_started_again_and_the_log_says_so(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    pids = _start_up(gateway)
    os.kill(pids["queue-0"], signal.SIGKILL)
    wait_until(lambda: gateway.role_pids().get("queue-0", pids["queue-0"]) != pids["queue-0"], 10, "a new queue-0")
    line = next(line for line in gateway.log().splitlines() if "role ended" in line)
    assert '"role": "queue-0"' in line
    assert '"status": -9' in line
    assert {name: pid for name, pid in gateway.role_pids().items() if name != "queue-0"} == {
        name: pid for name, pid in pids.items() if name != "queue-0"
    }


def test_a_role_that_stays_stopped_is_ended_and_started_again(make_gateway: Callable[..., Gateway]) -> None:
    """It may have been stopped with a lock in hand that all the others wait for."""
    gateway = make_gateway()
    pids = _start_up(gateway)
    os.kill(pids["smtp-0"], signal.SIGSTOP)
    wait_until(lambda: gateway.role_pids().get("smtp-0", pids["smtp-0"]) != pids["smtp-0"], 30, "a new smtp-0")
    assert "role was stopped by a signal" in gateway.log()
    assert gateway.send("alice@example.org", make_message("after")) == {}


# --- privileges -------------------------------------------------------------------------------------------------------


def test_children_of_root_are_nobody_for_good(make_gateway: Callable[..., Gateway], as_root: None) -> None:
    nobody = pwd.getpwnam("nobody")
    gateway = make_gateway()
    pids = _start_up(gateway)
    assert _status(gateway.pid)["Uid"] == ["0"] * 4
    for name, pid in pids.items():
        status = _status(pid)
        # Real, effective, saved and file-system ids: with none of them root there is no way back.
        assert status["Uid"] == [str(nobody.pw_uid)] * 4, name
        assert status["Gid"] == [str(nobody.pw_gid)] * 4, name
        assert set(status["Groups"]) <= {str(nobody.pw_gid)}, name
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[capabilities][0], 16) == 0, f"{name} {capabilities}"


def test_data_belongs_to_nobody_and_is_closed_to_others(make_gateway: Callable[..., Gateway], as_root: None) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    gateway = make_gateway()
    _start_up(gateway)
    gateway.send("alice@example.org", make_message("small"))
    gateway.send(["alice@example.org", "bob@example.org"], make_message("large", 100_000))
    gateway.wait_mails("alice@example.org", 2)
    paths = [gateway.data, *gateway.data.rglob("*")]
    assert len(paths) > 20
    found = [(path, path.lstat()) for path in paths if path.exists()]
    # The lock is the supervisor's own.
    assert [str(path) for path, stat in found if stat.st_uid != nobody and path.name != "lock"] == []
    assert [f"{path} {stat.st_mode:o}" for path, stat in found if stat.st_mode & 0o077] == []


@pytest.mark.skipif(find_command("setpriv") is None, reason="setpriv is not installed")
def test_an_ordinary_user_can_run_it(make_gateway: Callable[..., Gateway], as_root: None) -> None:
    setpriv = find_command("setpriv") or "setpriv"
    gateway = make_gateway()
    for path in (gateway.folder, *gateway.folder.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    argv = [setpriv, "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-m", "gateway"]
    daemon = Daemon(
        [*argv, "run", "-c", gateway.config],
        log=gateway.log_path,
        cwd=REPOSITORY,
        ready=gateway.is_up,
        start_timeout=30,
        stop_timeout=35,
    )
    with daemon:
        assert _status(daemon.pid)["Uid"] == [str(pwd.getpwnam("nobody").pw_uid)] * 4
        assert gateway.send("alice@example.org", make_message("as a user")) == {}
        gateway.wait_mails("alice@example.org", 1)
        assert daemon.stop() == 0
    wait_until(daemon.session_is_empty, 5, "nothing left running")


# --- refusing to start ------------------------------------------------------------------------------------------------


def test_a_second_gateway_on_one_data_folder_refuses(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    _start_up(gateway)
    second = gateway.folder / "second.toml"
    text = gateway.config.read_text()
    for port in gateway.ports.values():
        text = text.replace(f":{port}", ":0")
    second.write_text(text)
    result = run([sys.executable, "-m", "gateway", "run", "-c", str(second)], timeout=20, cwd=REPOSITORY).expect(1)
    assert result.stderr == f"smarthost: gateway.data: {gateway.data} is in use by another running gateway\n"
    assert set(gateway.role_pids()) == ROLES
    assert gateway.send("alice@example.org", make_message("still")) == {}


def test_a_port_in_use_is_named(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    with socket.create_server((LOOPBACK, gateway.ports["smtp"])):
        result = _run_once(gateway).expect(1)
    assert f"cannot listen on 127.0.0.1:{gateway.ports['smtp']}: Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"limits": {"size": "huge"}}, "limits.size: "),
        ({"limits": {"sise": 1}}, "limits.sise: unknown key"),
        ({"listen": {"smtp": ["127.0.0.1"]}}, "listen.smtp.0: "),
        ({"queue": {"retry": ["1s", "soon"]}}, "queue.retry.1: "),
        ({"gateway": {"hostname": "not a name"}}, "gateway.hostname: "),
    ],
)
def test_a_broken_configuration_is_refused_at_its_key(
    make_gateway: Callable[..., Gateway], settings: dict[str, dict[str, object]], place: str
) -> None:
    gateway = make_gateway(settings=settings)
    result = _run_once(gateway).expect(1)
    assert f"{gateway.config}: {place}" in result.stderr
    assert "Traceback" not in result.stderr


def test_toml_that_does_not_parse_is_refused_at_its_line(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    lines = gateway.config.read_text().splitlines()
    gateway.config.write_text("\n".join([*lines, "[limits", "size = 1"]) + "\n")
    result = _run_once(gateway).expect(1)
    assert f"{gateway.config}: " in result.stderr
    assert f"at line {len(lines) + 1}, column " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("stage: connect\nrules:\n  - accept: all\n    when: client.nonsense\n", "policies/10-connect.yaml:4:11"),
        ("stage: nowhere\nrules: []\n", "policies/10-connect.yaml:1:8"),
        ("stage: connect\n  rules: []\n", "policies/10-connect.yaml:2:8"),
        ("stage: connect\nrules:\n  - accept: all\n    whem: client.trusted\n", "policies/10-connect.yaml:4:5"),
    ],
)
def test_a_broken_policy_is_refused_at_file_line_and_column(
    make_gateway: Callable[..., Gateway], text: str, place: str
) -> None:
    gateway = make_gateway(policies={"10-connect.yaml": text})
    result = _run_once(gateway).expect(1)
    assert f"{place}: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_service_user_is_refused(make_gateway: Callable[..., Gateway], as_root: None) -> None:
    gateway = make_gateway(settings={"gateway": {"user": "no-such-user"}})
    result = _run_once(gateway).expect(1)
    assert "gateway.user: there is no user 'no-such-user'" in result.stderr


def test_a_missing_certificate_is_refused(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    (gateway.folder / "tls" / "cert.pem").unlink()
    result = _run_once(gateway).expect(1)
    assert "tls: " in result.stderr
    assert "cert.pem" in result.stderr
    assert "Traceback" not in result.stderr


# --- certificates -----------------------------------------------------------------------------------------------------


def _served(gateway: Gateway, listener: str) -> bytes:
    context = ssl._create_unverified_context()
    with (
        socket.create_connection((LOOPBACK, gateway.ports[listener]), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=gateway.hostname) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""


def test_a_replaced_certificate_is_served_without_a_restart(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    pids = _start_up(gateway)
    folder, fresh = gateway.folder / "tls", gateway.folder / "fresh"
    old = _served(gateway, "submissions")
    write_certificate(fresh, gateway.hostname)
    # Half of the pair first, as a careless copy would do it: the old one goes on meanwhile.
    os.replace(fresh / "key.pem", folder / "key.pem")
    assert _served(gateway, "submissions") == old
    os.replace(fresh / "cert.pem", folder / "cert.pem")
    new = ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())
    assert new != old
    for listener in ("submissions", "pop3s"):
        # Several connections in a row: both workers have it.
        wait_until(
            lambda name=listener: all(_served(gateway, name) == new for _ in range(6)), 10, f"the new one on {listener}"
        )
    with gateway.smtp("submission") as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.getpeercert(binary_form=True) == new
    assert gateway.role_pids() == pids
