"""The heartbeat of a run: heartbeat.json, written each second, tells how much charged time a crash has lost.

heartbeat.json has `time` (seconds since the epoch), `charged` (seconds charged to the budget) and its own SHA-256.
"""

import threading
import time
from pathlib import Path

from cram.clock import Clock
from cram.config.schema import LARGEST
from cram.errors import CramError
from cram.files.sealed import read_sealed, write_sealed

INTERVAL = 1.0  # seconds between two beats


class Heartbeat:
    """A context in which a thread writes the charged seconds of a clock to heartbeat.json.

    Args:
        run: the run folder.
        clock: of the run.
    """

    def __init__(self, run: Path, clock: Clock) -> None:
        self._path = run / "heartbeat.json"
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        # At once: the file of an earlier process may count time that an extension of the budget has discarded.
        self._write()
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
        try:
            write_sealed(self._path, {"time": time.time(), "charged": self._clock.charged()})
        except (CramError, OSError):
            # The next checkpoint reports a full disk. A missing beat only makes the time of a crash less exact.
            return


def last_beat(run: Path) -> float | None:
    """Return when the heartbeat of a run was last written, in seconds since the epoch; None if that is not known."""
    try:
        beat = read_sealed(run / "heartbeat.json").get("time")
    except CramError:
        return None
    return float(beat) if isinstance(beat, int | float) and abs(beat) <= LARGEST else None


def read_heartbeat(run: Path) -> float:
    """Return the charged seconds at the last beat of a run: 0 if there was none, 0 with a warning if it is damaged."""
    path = run / "heartbeat.json"
    if not path.exists():
        return 0.0
    try:
        charged = read_sealed(path).get("charged")
    except CramError:
        charged = None
    # The checksum does not prove that cram wrote the file. Anything but a number would break the clock.
    if isinstance(charged, int | float) and not isinstance(charged, bool) and 0 <= charged <= LARGEST:
        return float(charged)
    print(f"warning: {path} is damaged or edited, so the time that a crash may have lost is not charged", flush=True)
    return 0.0
