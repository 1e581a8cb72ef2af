"""A real spamd with network tests off, its rules from Debian's package, in a folder of its own."""

import os
import shutil
import tempfile
from pathlib import Path

from .process import LOOPBACK, Daemon, free_port, missing


def spamd_missing() -> str | None:
    """Why a test with `SpamAssassin` must be skipped, or None."""
    return missing("spamd", root=True)


class SpamAssassin:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smarthost-spamd-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.port = free_port()
        (self.folder / "site").mkdir()
        (self.folder / "site" / "local.cf").write_text(
            f"required_score 5\nuse_bayes 1\nbayes_path {self.folder}/bayes/bayes\nbayes_auto_learn 0\n"
        )
        (self.folder / "bayes").mkdir()
        for path in Path("/etc/spamassassin").glob("*.pre"):
            shutil.copy(path, self.folder / "site")
        shutil.chown(self.folder / "bayes", "nobody")
        argv = [
            "spamd", "--local", "--allow-tell", "--nouser-config", "--username=nobody", "--max-children=2",
            f"--listen={LOOPBACK}", f"--port={self.port}", f"--siteconfigpath={self.folder}/site", "--syslog=stderr",
            "--timeout-child=30",
        ]  # fmt: skip
        self.daemon = Daemon(
            argv, log=self.folder / "log", ready_port=(LOOPBACK, self.port), start_timeout=60.0,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    def __enter__(self) -> "SpamAssassin":
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
