"""`decant cache`: what a person does with cache files. No command imports torch, but for a .pt file or a
teacher.

show.py      what is in a store and in a cache
verify.py    whether a cache is what was written, and what its teacher says
convert.py   caches made of other tables and caches, tables made of caches, and what can go
"""

from __future__ import annotations

import click

from decant.pipeline.cli.cache.convert import collect, export, import_table, merge
from decant.pipeline.cli.cache.show import diff, info, list_caches, path
from decant.pipeline.cli.cache.verify import verify


@click.group("cache")
def cache() -> None:
    """Look at cache files, check them, convert them, clear them away.

    A CACHE is a path, a file's name in the store, or the first digits of a key.
    """


for command in (list_caches, info, verify, diff, path, import_table, export, merge, collect):
    cache.add_command(command)
