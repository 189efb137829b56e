"""How many threads decode images: as many as make the most of them.

The decoder lets go of the interpreter's lock, but what is around it holds it, a quarter of the time that a small image
takes. Threads beyond four or so then queue for the lock: with 16 threads an image takes three times as many calls to
the system as with 4. Large images, and those of a slow disk, are made the faster the more threads there are. Which it
is, is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_AT_FIRST, _FIXED = 4, 8
_SECONDS, _EACH = 0.5, 4
"""A rate is that of half a second at least, in which each thread has made so many blocks on average."""
_BETTER = 1.05
_PAUSE = 2.0


def fixed_count(cores: int) -> int:
    """Threads of a pool, whose number stays: a compromise.

    >>> fixed_count(2), fixed_count(16)
    (2, 8)
    """
    return min(cores, _FIXED)


@dataclass
class ThreadCount:
    """`count` threads, of at most `most`: twice as many for a while, and from then on if more was made with them.

    Where it was not, that is tried again after two seconds, then four, eight, and so on, as a machine may have been
    busy.

    >>> threads, made, counts = ThreadCount(most=16), 0, []
    >>> for second in range(8):  # on a machine where 8 make twice as many as 4, and 16 no more
    ...     threads.see(made, now=second)
    ...     made += 25 * min(8, threads.count)
    ...     counts.append(threads.count)
    >>> counts
    [4, 8, 16, 8, 8, 16, 8, 8]
    """

    most: int
    count: int = field(init=False)
    rate: float | None = field(init=False, default=None)
    """Blocks a second, as they were last measured."""
    _since: tuple[int, float] | None = field(init=False, default=None)
    _before: tuple[int, float] | None = field(init=False, default=None)
    """While more are tried: how many there were, and what they made a second."""
    _pause: float = field(init=False, default=_PAUSE)
    _again: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.count = min(self.most, _AT_FIRST)

    def see(self, made: int, now: float) -> None:
        """Decides how many there are from now on. made: blocks until now; now: seconds of any clock."""
        if self._since is None:
            self._since = made, now
            return
        blocks, seconds = made - self._since[0], now - self._since[1]
        if seconds < _SECONDS or blocks < _EACH * self.count:
            return
        self._since, self.rate = (made, now), (rate := blocks / seconds)
        if self._before is not None:
            count, rate_before = self._before
            self._before = None
            if rate < _BETTER * rate_before:
                self.count, self._again, self._pause = count, now + self._pause, 2 * self._pause
                return
            self._pause = _PAUSE
        if self.count < self.most and now >= self._again:
            self._before, self.count = (self.count, rate), min(2 * self.count, self.most)

    def limit(self, count: int) -> None:
        """From now on there are at most so many, as the system starts no more."""
        self.most = self.count = count
        self._before = None
