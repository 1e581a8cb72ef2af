"""Fuzzing led by coverage: `python -m tests.fuzz.run TARGET [SECONDS]`, or `all` for each target in turn.

Needs atheris, which is in no lock file: `make fuzz` puts it with the rest into a virtual environment of its own.

What is found is made shorter and kept in `.cache/fuzz/TARGET/found/`, one case for each place that fails, and the run
goes on; so is what a run has learnt, in `.cache/fuzz/TARGET/corpus/`, for the next. Exit code 1: something was found.
A case worth keeping goes to `tests/fuzz/found/TARGET/` under a name that says what it is.
"""

import hashlib
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "fuzz"
MAX_LENGTH = 4000  # octets
HANG_S = 60  # ends the run: the case is kept as `timeout-…`
SHORTEN_S = 20.0


def main(name: str, seconds: int) -> int:
    """Runs the fuzzer in a process of its own, for that ends as it likes."""
    folder = CACHE / name
    for each in ("corpus", "found"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    started = time.time()
    command = [sys.executable, "-m", "tests.fuzz.run", "--inside", name, str(seconds)]
    code = subprocess.run(command, check=False).returncode
    found = [path for path in (folder / "found").iterdir() if path.stat().st_mtime >= started]
    for path in found:
        print(f"found: {path}")
    return 1 if found or code else 0


def fuzz(name: str, seconds: int) -> None:
    import atheris

    rooms = ["gateway", "tests.fuzz.targets", "tests.fuzz.imap_targets", "authres", "dkim", "spf"]
    with atheris.instrument_imports(include=rooms):
        import tests.fuzz.imap_targets  # noqa: F401  # its targets join the others
        from tests.fuzz.targets import TARGETS
    target, folder = TARGETS[name], CACHE / name
    seen: set[str] = set()

    def one(data: bytes) -> None:
        flaw = flaw_of(target, data)
        if not flaw or (place := flaw.splitlines()[0]) in seen:
            return
        seen.add(place)
        short = shortened(target, data, place)
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        (folder / "found" / digest).write_bytes(short)
        (folder / f"{digest}.txt").write_text(f"{flaw_of(target, short)}\n{short!r}\n", encoding="utf-8")
        print(f"== {place}\n{short!r}", flush=True)

    options = [
        f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-max_len={MAX_LENGTH}", "-len_control=10",
        "-rss_limit_mb=1500",
        f"-artifact_prefix={folder}/found/", f"-dict={HERE}/words.dict", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus"), str(HERE / "seeds" / name)], one)
    atheris.Fuzz()


def flaw_of(target: object, data: bytes) -> str:
    """What fails and where, without what differs from case to case; then the traceback. Or nothing."""
    assert callable(target)
    try:
        target(data)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = re.sub(r"\d+", "N", str(error).partition("\n")[0])[:100]
        return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno} {text}\n{traceback.format_exc()}"
    return ""


def shortened(target: object, data: bytes, place: str) -> bytes:
    """Pieces go, ever smaller ones, while the same fails."""
    ends = time.monotonic() + SHORTEN_S
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            if time.monotonic() > ends:
                return data
            shorter = data[:at] + data[at + size :]
            if flaw_of(target, shorter).startswith(place):
                data = shorter
            else:
                at += size
        size //= 2
    return data


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        fuzz(sys.argv[2], int(sys.argv[3]))
    else:
        wanted = sorted(path.name for path in (HERE / "seeds").iterdir()) if sys.argv[1] == "all" else [sys.argv[1]]
        sys.exit(max(main(each, int(sys.argv[2]) if len(sys.argv) > 2 else 60) for each in wanted))
