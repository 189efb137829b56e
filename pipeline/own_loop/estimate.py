"""What a teacher's pass would take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """What `cache_logits` would do, from a few batches: `cache_logits(…, dry_run=True)`.

    >>> print(Estimate(rows=200_000, missing=150_000, seconds=93.4, bytes=40_800_000))
    150,000 of 200,000 rows to compute, in about 1 min 33 s; the file takes 40.8 MB
    """

    rows: int
    """V·N."""
    missing: int
    """Rows that are not computed yet."""
    seconds: float
    """For these, on this machine."""
    bytes: int
    """Of the whole file."""

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        took = f"{minutes:,} min {seconds} s" if minutes else f"{seconds} s"
        return (
            f"{self.missing:,} of {self.rows:,} rows to compute, in about {took}; the file takes "
            f"{self.bytes / 1e6:,.1f} MB"
        )
