"""A command that works until something ends it: `python -m tests.helpers.ending_commands HOW`."""

from __future__ import annotations

import sys
import time

import click

from decant.pipeline.cli.main import decant, main


@decant.command()
@click.argument("how")
def work(how: str) -> None:
    """Works for ever; HOW says what its cleaning does when it is ended."""
    try:
        print("works", flush=True)
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        if how == "error":  # as a library does that is cut short
            raise RuntimeError("a worker was killed") from None
        raise
    finally:
        print("cleans", flush=True)
        if how == "slowly":
            time.sleep(600)
        print("cleaned", flush=True)


if __name__ == "__main__":
    sys.argv = ["decant", "work", sys.argv[1]]
    main()
