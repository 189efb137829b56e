"""`decant cache`: commands for cache files. None imports torch, except to read a .pt file or to run a teacher.

show.py      ls, info, diff, path: what a store and a cache hold
transfer.py  push, pull: caches into stores elsewhere, and copies of what lies there
verify.py    verify: whether a cache is intact, and agrees with its teacher
convert.py   import, export, convert, gc: caches from arrays, arrays from caches, smaller caches, unused files
merge.py     merge: one cache from several, or from the parts of one
"""

from __future__ import annotations

import click

from decant.pipeline.cli.cache.convert import collect, convert, export, import_table
from decant.pipeline.cli.cache.merge import merge
from decant.pipeline.cli.cache.show import diff, info, list_caches, path
from decant.pipeline.cli.cache.transfer import pull, push
from decant.pipeline.cli.cache.verify import verify


@click.group("cache")
def cache() -> None:
    """Show, check, convert and remove cache files.

    A CACHE is a path, a file's name in the store, the first digits of a key, or an address as s3://bucket/x.h5.
    """


for command in (
    list_caches,
    info,
    verify,
    diff,
    path,
    import_table,
    export,
    convert,
    merge,
    collect,
    push,
    pull,
):
    cache.add_command(command)
