"""A heartbeat each second dates a crash, so that the time it lost can be charged."""

import threading
import time
from pathlib import Path

from cram.clock import Clock
from cram.errors import CramError
from cram.record import read_json, to_json, write_atomic
from cram.schema import LARGEST

INTERVAL = 1.0  # seconds


class Heartbeat:
    """A thread that writes the charged seconds to `heartbeat.json` each second while a run trains."""

    def __init__(self, run: Path, clock: Clock) -> None:
        self._path = run / "heartbeat.json"
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._write()  # what an earlier process wrote may be of time that is no longer counted
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._write()

    def _write(self) -> None:
        beat = {"time": time.time(), "charged": self._clock.charged()}
        try:
            write_atomic(self._path, to_json(beat).encode())
        except (CramError, OSError):
            # A full disk is the checkpoint's to report; a missed beat only dates a crash less well.
            return


def last_beat(run: Path) -> float:
    """Charged seconds at the last heartbeat of a run; 0 where there was none, and with a warning of an edited one."""
    path = run / "heartbeat.json"
    if not path.exists():
        return 0.0
    try:
        beat = read_json(path)
    except CramError:
        beat = None
    charged = beat.get("charged") if isinstance(beat, dict) else None
    if isinstance(charged, int | float) and not isinstance(charged, bool) and 0 <= charged <= LARGEST:
        return float(charged)
    print(f"warning: {path} is damaged or edited, so the time that a crash may have lost is not charged", flush=True)
    return 0.0
