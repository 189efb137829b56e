"""Speed, measured: `python -m benchmarks`. Ratios of medians of interleaved repetitions, asserted nowhere."""
