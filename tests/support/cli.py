"""The command line in processes of its own, without the price of an import each time.

A server process imports the commands once and forks for each call, so exit codes and output are real. As root they stay
root, by `[gateway] user`: the drop to another user is for the tests with a whole gateway.
"""

import getpass
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.support.process import Finished

REPOSITORY = Path(__file__).resolve().parents[2]
_SERVER = """
import json, os, sys
from gateway.cli.main import main
import gateway.accounts.credentials, gateway.storage.sqlite_accounts, cryptography.x509
for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 70
        try:
            for number, name in enumerate(("in", "out", "err")):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                os.dup2(os.open(call["folder"] + "/." + name, flags, 0o600), number)
            os.chdir(call["folder"])
            os.environ.update(call["env"])
            main(call["argv"], prog_name="smarthost")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Cli:
    """`cli("user", "list")` runs `smarthost user list` in `folder`. 70 is the code of a traceback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore:Can not control echo on the terminal.", "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )

    def __call__(self, *argv: str, stdin: str = "", env: dict[str, str] | None = None) -> Finished:
        for name in ("in", "out", "err"):
            path = self.folder / f".{name}"
            path.write_text(stdin if name == "in" else "", encoding="utf-8")
            path.chmod(0o666)
        call = {
            "argv": argv,
            "folder": str(self.folder),
            "env": {"COLUMNS": "200", "SMARTHOST_GATEWAY__USER": getpass.getuser(), **(env or {})},
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(call) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        out, err = ((self.folder / f".{name}").read_text(encoding="utf-8") for name in ("out", "err"))
        return Finished(("smarthost", *argv), code, out, err)

    def __enter__(self) -> "Cli":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()
