"""A real Thunderbird with one IMAP account of a gateway; its window is on a screen of its own (Xvfb).

Scripts in it call what its menus call, through Marionette. Nothing but loopback is asked.
"""

import base64
import json
import os
import re
import ssl
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.gateway import PASSWORD, Gateway
from tests.support.marionette import Marionette
from tests.support.process import Daemon, free_port, port_answers, tail, wait_until

TIME = 20.0  # for anything that one side does and the other is to see

# What all scripts have: the account's folders and messages by name.
PRELUDE = """
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const server = MailServices.accounts.getIncomingServer("server1").QueryInterface(Ci.nsIImapIncomingServer);
const folders = () => server.rootFolder.descendants.map(each => each.QueryInterface(Ci.nsIMsgImapMailFolder));
const folder = name => folders().find(each => each.onlineName == name);
const mail = (name, subject) => [...folder(name).messages].find(each => each.mime2DecodedSubject == subject);
const pane = () => window.document.getElementById("tabmail").currentAbout3Pane;
"""

# Nothing but loopback: what Marionette does not turn off by itself, and a proxy that refuses whatever is left.
QUIET = {
    "app.donation.eoy.version.viewed": 999,
    "calendar.timezone.useSystemTimezone": True,
    "extensions.systemAddon.update.url": "",
    "mail.chat.enabled": False,
    "mail.inappnotifications.enabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.auto_config_url": "",
    "mailnews.start_page.enabled": False,
    "media.gmp-manager.url": "",
    "network.dns.disableIPv6": True,
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 1,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 1,
    "toolkit.telemetry.enabled": False,
}


class Thunderbird:
    """A new profile with one account, in a process of its own."""

    def __init__(self, folder: Path, gateway: Gateway, user: str, *, condstore: bool) -> None:
        self.folder = folder
        self.condstore = condstore
        self._gateway = gateway
        self._user = user
        self._port = free_port()
        self._stack = ExitStack()
        account = {
            "mail.accountmanager.accounts": "account1",
            "mail.accountmanager.defaultaccount": "account1",
            "mail.account.account1.server": "server1",
            "mail.account.account1.identities": "id1",
            "mail.identity.id1.fullName": "Alice",
            "mail.identity.id1.useremail": user,
            "mail.identity.id1.valid": True,
        }
        server = {
            "type": "imap",
            "hostname": "localhost",
            "port": gateway.ports["imaps"],
            "userName": user,
            "name": user,
            "socketType": 3,  # TLS from the start
            "authMethod": 3,  # a password
            "login_at_startup": False,
            "check_new_mail": False,  # no polling: what is new is told in IDLE
            "use_condstore": condstore,
            "offline_download": False,  # so that reading a message means to fetch it
            "autosync_offline_stores": False,
        }
        account |= {f"mail.server.server1.{name}": value for name, value in server.items()}
        account |= {"marionette.port": self._port, "offline.startup_state": 3}  # offline, until the password is there
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in (QUIET | account).items()]
        (folder / "profile").mkdir()
        (folder / "profile" / "user.js").write_text("".join(lines), encoding="utf-8")

    def __enter__(self) -> Self:
        with self._stack as stack:
            screen = self.folder / "screen.log"
            number = re.compile(r"^(\d+)$", re.MULTILINE)
            argv = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
            stack.enter_context(Daemon(argv, log=screen, ready=lambda: number.search(screen.read_text())))
            display = number.search(screen.read_text())
            assert display is not None
            env = {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder),
                "DISPLAY": f":{display[1]}",
                "LANG": "C.UTF-8",
                "DBUS_SESSION_BUS_ADDRESS": "disabled:",
                "MOZ_CRASHREPORTER_DISABLE": "1",
                "MOZ_LOG": "IMAP:3,timestamp,sync",
                "MOZ_LOG_FILE": str(self.folder / "imap"),
            }
            argv = ["thunderbird", "--marionette", "--remote-allow-system-access", "--no-remote"]
            program = Daemon(
                [*argv, "--profile", str(self.folder / "profile")],
                log=self.folder / "thunderbird.log",
                env=env,
                ready=lambda: port_answers("127.0.0.1", self._port),
                start_timeout=60.0,
            )
            stack.callback(program.kill)
            program.start()
            self._marionette = stack.enter_context(Marionette(self._port))
            stack.callback(self._marionette.quit)
            self._sign_in()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _sign_in(self) -> None:
        """Store the password, trust the certificate as a user who confirms the exception does, show the INBOX."""
        pem = (self._gateway.folder / "tls" / "cert.pem").read_text()
        der = ssl.PEM_cert_to_DER_cert(pem)
        wait_until(lambda: self.js("return !!pane()?.folderTree?.rowCount"), TIME, "Thunderbird's window")
        self.js(
            """
            const [user, password, certificate] = arguments;
            const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
            login.init("imap://localhost", null, "imap://localhost", user, password, "", "");
            await Services.logins.addLoginAsync(login);
            const known = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
            Cc["@mozilla.org/security/certoverride;1"].getService(Ci.nsICertOverrideService).rememberValidityOverride(
                "localhost", server.port, {}, known.constructX509FromBase64(certificate), true);
            Services.io.offline = false;
            pane().displayFolder(folder("INBOX"));
            """,
            self._user,
            PASSWORD,
            base64.b64encode(der).decode(),
        )
        wait_until(lambda: self.js('return !!folder("Trash")'), TIME, "the account's folders")

    def js(self, source: str, *arguments: object) -> object:
        """Run the body of an async function in Thunderbird, after `PRELUDE`."""
        return self._marionette.script(f"{PRELUDE} return (async () => {{ {source} }})();", *arguments)

    def subjects(self, name: str) -> list[str]:
        found = self.js("return [...folder(arguments[0]).messages].map(each => each.mime2DecodedSubject);", name)
        assert isinstance(found, list)
        return found

    def wait_shown(self, subject: str, name: str = "INBOX") -> None:
        """Look into a folder until the message is there. While it is busy with a folder it forgets that it was asked to
        look, so it is asked again.
        """

        def look() -> bool:
            if subject in self.subjects(name):
                return True
            self.js("folder(arguments[0]).updateFolder(window.msgWindow);", name)
            return False

        wait_until(look, TIME, f"{subject} in {name}", interval=0.2)

    def wait_told(self, subject: str) -> None:
        """Until a message is in the INBOX without being asked to look."""
        wait_until(lambda: subject in self.subjects("INBOX"), TIME, f"{subject} in INBOX by IDLE")

    def wait_gone(self, subject: str, name: str = "INBOX") -> None:
        wait_until(lambda: subject not in self.subjects(name), TIME, f"{subject} no more in {name}")

    def said(self, name: str) -> list[str]:
        """The commands that it sent while a mailbox was selected, without their tags."""
        log = (self.folder / "imap.moz_log").read_text(encoding="utf-8", errors="replace")
        return [line.strip() for line in re.findall(rf":S-{re.escape(name)}:SendData: (?:\d+ )?(.*)", log)]

    def trace(self) -> str:
        """The end of what was said on the wire."""
        return tail(self.folder / "imap.moz_log", lines=300)
