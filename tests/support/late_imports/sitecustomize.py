"""For PYTHONPATH: notes in the file LATE_IMPORTS what a process imports after it gave root away.

Where Smarthost or its Python lies in a folder of root's own, the service's user could not read it then.
"""

import os
import sys

_PATH = os.environ.get("LATE_IMPORTS")


def _note(event: str, args: tuple[object, ...]) -> None:
    if event == "import" and os.geteuid() != 0:
        with open(_PATH or os.devnull, "a") as file:
            file.write(f"{args[0]} by {' '.join(sys.argv[1:3])}\n")


if _PATH:
    sys.addaudithook(_note)
