"""A heartbeat each second dates a crash, so that the time it lost can be charged."""

import threading
import time
from pathlib import Path

from cram.clock import Clock
from cram.config.schema import LARGEST
from cram.errors import CramError
from cram.files.sealed import read_sealed, write_sealed

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
            write_sealed(self._path, beat)
        except (CramError, OSError):
            # A full disk is the checkpoint's to report; a missed beat only dates a crash less well.
            return


def read_heartbeat(run: Path) -> float:
    """Charged seconds at the last heartbeat of a run; 0 where there was none, and with a warning of an edited one."""
    path = run / "heartbeat.json"
    if not path.exists():
        return 0.0
    try:
        charged = read_sealed(path).get("charged")
    except CramError:
        charged = None
    if isinstance(charged, int | float) and not isinstance(charged, bool) and 0 <= charged <= LARGEST:
        return float(charged)
    print(f"warning: {path} is damaged or edited, so the time that a crash may have lost is not charged", flush=True)
    return 0.0
