"""For PYTHONPATH: a gateway that records nothing, to see what recording costs."""

import os
import sys


class _Finder:
    """Empties the recorder's two entrances once their rooms are imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "gateway.app" and "gateway.telemetry.recorder" not in sys.modules:
            from gateway.servers.smtp_record import TransactionRecord
            from gateway.telemetry.recorder import Recorder

            Recorder.record = lambda *arguments, **named: None  # type: ignore[method-assign]
            TransactionRecord.write = lambda *arguments, **named: None  # type: ignore[method-assign]


if os.environ.get("SMARTHOST_UNRECORDED"):
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
