"""Speed, measured: `python -m tests.bench`. Ratios of medians of interleaved repetitions, asserted nowhere."""
