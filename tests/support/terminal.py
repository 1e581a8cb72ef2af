"""A program for people in a terminal: tmux gives it a screen, is told keys and asked what is to be seen.

Each has a tmux server of its own, with a socket in the folder given, and ends it by that socket.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import DeadlineError, Finished, run, wait_until


class Terminal:
    """folder: with a short path (that of a socket has at most 107 octets). env: added to this process's own."""

    def __init__(self, folder: Path, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._argv = argv
        self._env = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **env}
        self._env.pop("TMUX", None)
        self._pid = 0

    def __enter__(self) -> Self:
        """Start the program; its screen stays to be read when it has ended."""
        (self._folder / "tmux.conf").write_text("set -g remain-on-exit on\nset -s escape-time 0\n", encoding="utf-8")
        shell = ["sh", "-c", f'"$@"; echo $? > {self._folder}/code', "sh"]
        self._tmux("new-session", "-d", "-x", "120", "-y", "40", "--", *shell, *self._argv)
        self._pid = int(self._tmux("display-message", "-p", "#{pid}").stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The server ends, and what runs in it is hung up."""
        self._tmux("kill-server")
        wait_until(lambda: not Path(f"/proc/{self._pid}").exists(), 10, "the end of tmux")

    def press(self, *keys: str) -> None:
        """keys: as tmux names them: "q", "Enter", "C-u"."""
        self._tmux("send-keys", *(_word(key) for key in keys))

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", "--", _word(text))

    def answer(self, prompt: str, text: str, *, in_place_of_another: bool = True) -> None:
        """Wait for the prompt, take out what it proposes, and type this."""
        self.see(prompt)
        if in_place_of_another:
            self.press("C-u")
        self.type(text)
        self.press("Enter")

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p").stdout

    def see(self, pattern: str, *, without: str = "", timeout: float = 20) -> str:
        """Wait until the screen has a match of this and none of `without`; the screen."""

        def found() -> str:
            screen = self.screen()
            return screen if re.search(pattern, screen) and not (without and re.search(without, screen)) else ""

        try:
            return wait_until(found, timeout, f"{pattern!r} on the screen", interval=0.05)
        except DeadlineError as error:
            raise DeadlineError(f"{error}; it shows:\n{self.screen()}") from None

    def code(self) -> int:
        """The program's, once it has ended. tmux itself does not always come to know it."""
        path = self._folder / "code"
        text = wait_until(lambda: path.read_text() if path.exists() else "", 20, f"the end of {self._argv[0]}")
        return int(text)

    def _tmux(self, *words: str) -> Finished:
        command = ["tmux", "-u", "-S", str(self._folder / "tmux"), "-f", str(self._folder / "tmux.conf"), *words]
        return run(command, timeout=20, env=self._env).expect()


def _word(text: str) -> str:
    """To tmux a semicolon at the end of a word parts two commands."""
    return f"{text[:-1]}\\;" if text.endswith(";") else text
