"""Sound over time: when was the last sound of each call, and since when has it been a tone.

Owns: the bookkeeping that turns the level and tone of single packets into the two moments by which a recording is ended.
Refuses to know: how long a silence may be and what to do about it; that is the script's decision.

Theory of operation: calls are rows; every fact is one array over all rows, and a batch of packets updates the rows it names.

- *Noise floor.* Falls to the level of a quieter packet at once and rises 1 dB a second, never above -35 dBov; so within one
  pause between two words it knows how loud the room is. It starts at the cap: a caller who begins to speak at
  once is sound before any pause was heard. It is not followed below -58 dBov, where it no longer matters, so that one
  packet of digital silence in a noisy call is forgotten in seconds.
- *Sound.* A packet is a candidate when it is no tone and louder than both -50 dBov and 8 dB over the floor. Two candidates
  within 100 ms are sound; one alone is a click, or the edge of a beep.
- *Tone.* Tone packets that follow each other for 100 ms open a stretch of tone, counted from the first of them. Busy and
  ringback pause inside: a stretch lives on through gaps of up to 5 s (ringback pauses 4 s) and is closed by sound.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SOUND_MIN_DBOV: Final = -50.0
SOUND_OVER_FLOOR_DB: Final = 8.0
NOISE_FLOOR_MAX_DBOV: Final = -35.0
NOISE_FLOOR_MIN_DBOV: Final = SOUND_MIN_DBOV - SOUND_OVER_FLOOR_DB
NOISE_FLOOR_RISE_DB_PER_S: Final = 1.0
SOUND_PAIR_NS: Final = 100_000_000
TONE_OPENS_NS: Final = 80_000_000
"""From the first to the latest arrival of a run: five packets of 20 ms, which are 100 ms of tone."""
TONE_GAP_NS: Final = 5_000_000_000

Rows = NDArray[np.intp]
Moments = NDArray[np.int64]


class SoundWatch:
    """The state of ``capacity`` calls. One thread; the public arrays are live views, to be read and not written.

    All moments are monotonic nanoseconds as ``arrival_ns`` gives them; 0 means never.
    """

    last_sound_ns: Moments
    """Arrival of the latest packet that was sound since ``reset``."""
    tone_since_ns: Moments
    """Arrival of the first packet of the present stretch of tone, 0 when there is none. A call whose packets stop keeps its
    stretch: compare with ``last_tone_ns``."""
    last_tone_ns: Moments
    """Arrival of the latest tone packet that belonged to a run of 100 ms."""

    def __init__(self, capacity: int) -> None:
        self.last_sound_ns = np.zeros(capacity, np.int64)
        self.tone_since_ns = np.zeros(capacity, np.int64)
        self.last_tone_ns = np.zeros(capacity, np.int64)
        self._floor_dbov = np.full(capacity, NOISE_FLOOR_MAX_DBOV)
        self._heard_ns = np.zeros(capacity, np.int64)
        self._candidate_ns = np.zeros(capacity, np.int64)
        self._run_ns = np.zeros(capacity, np.int64)

    def reset(self, row: int) -> None:
        """Forget everything about one row: a recording begins there."""
        for column in (self.last_sound_ns, self.tone_since_ns, self.last_tone_ns):
            column[row] = 0
        for column in (self._heard_ns, self._candidate_ns, self._run_ns):
            column[row] = 0
        self._floor_dbov[row] = NOISE_FLOOR_MAX_DBOV

    def feed(
        self, rows: NDArray[np.integer], level_dbov: NDArray[np.floating], tone: NDArray[np.bool_], arrival_ns: Moments
    ) -> None:
        """Take one batch: for each packet its row, level, tone flag and arrival, in order of arrival.

        A row may occur several times; its packets count in the order of the batch. Raises IndexError for a row beyond the
        capacity, ValueError when the arrays differ in length.
        """
        if not len(rows) == len(level_dbov) == len(tone) == len(arrival_ns):
            raise ValueError("a batch has as many levels, tone flags and arrivals as rows")
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        grouped = rows[order].astype(np.intp)
        first = np.flatnonzero(np.concatenate(([True], grouped[1:] != grouped[:-1])))
        if len(first) == len(rows):
            self._feed_once(grouped, level_dbov[order], tone[order], arrival_ns[order])
            return
        sizes = np.diff(np.concatenate((first, [len(rows)])))
        turn = np.arange(len(rows)) - np.repeat(first, sizes)
        for number in range(int(sizes.max())):
            chosen = order[turn == number]
            self._feed_once(rows[chosen].astype(np.intp), level_dbov[chosen], tone[chosen], arrival_ns[chosen])

    def _feed_once(
        self, rows: Rows, level_dbov: NDArray[np.floating], tone: NDArray[np.bool_], arrival_ns: Moments
    ) -> None:
        """Take at most one packet a row."""
        floor = self._track_floor(rows, level_dbov, arrival_ns)
        candidate = ~tone & (level_dbov > np.maximum(SOUND_MIN_DBOV, floor + SOUND_OVER_FLOOR_DB))
        previous = self._candidate_ns[rows]
        sound = candidate & (previous != 0) & (arrival_ns - previous <= SOUND_PAIR_NS)
        self._candidate_ns[rows] = np.where(candidate, arrival_ns, previous)
        self.last_sound_ns[rows] = np.where(sound, arrival_ns, self.last_sound_ns[rows])
        self._track_tone(rows, tone, sound, arrival_ns)

    def _track_floor(self, rows: Rows, level_dbov: NDArray[np.floating], arrival_ns: Moments) -> NDArray[np.float64]:
        before = self._heard_ns[rows]
        elapsed_s = np.where(before == 0, 0, np.maximum(arrival_ns - before, 0)) / 1e9
        risen = self._floor_dbov[rows] + NOISE_FLOOR_RISE_DB_PER_S * elapsed_s
        floor: NDArray[np.float64] = np.clip(np.minimum(risen, level_dbov), NOISE_FLOOR_MIN_DBOV, NOISE_FLOOR_MAX_DBOV)
        self._floor_dbov[rows] = floor
        self._heard_ns[rows] = arrival_ns
        return floor

    def _track_tone(self, rows: Rows, tone: NDArray[np.bool_], sound: NDArray[np.bool_], arrival_ns: Moments) -> None:
        run = np.where(tone, np.where(self._run_ns[rows] == 0, arrival_ns, self._run_ns[rows]), 0)
        self._run_ns[rows] = run
        since, last = self.tone_since_ns[rows], self.last_tone_ns[rows]
        closed = sound | (arrival_ns - last > TONE_GAP_NS)
        since = np.where(closed, 0, since)
        steady = (run != 0) & (arrival_ns - run >= TONE_OPENS_NS)
        self.tone_since_ns[rows] = np.where(steady & (since == 0), run, since)
        self.last_tone_ns[rows] = np.where(steady, arrival_ns, last)
