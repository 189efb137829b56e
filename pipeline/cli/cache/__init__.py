"""`decant cache`: commands for cache files. None imports torch, except to read a .pt file or to run a teacher.

listing.py    ls: the caches of a store
show.py       info, path: what a cache holds;  positions.py  info of samples with several rows each
diff.py       diff: in which fields two caches differ
verify.py     verify: whether a cache is intact, and agrees with its teacher
importing.py  import: a cache of another program's logits
convert.py    export, convert: arrays, or a smaller cache, from a cache
merge.py      merge: one cache from several, or from the parts of one
gc.py         gc: unused files
transfer.py   push, pull: caches into stores elsewhere, and copies of what lies there
"""

from __future__ import annotations

import click

from decant.pipeline.cli.cache.convert import convert, export
from decant.pipeline.cli.cache.diff import diff
from decant.pipeline.cli.cache.gc import collect
from decant.pipeline.cli.cache.importing import import_table
from decant.pipeline.cli.cache.listing import list_caches
from decant.pipeline.cli.cache.merge import merge
from decant.pipeline.cli.cache.show import info, path
from decant.pipeline.cli.cache.transfer import pull, push
from decant.pipeline.cli.cache.verify import verify
from decant.pipeline.cli.groups import InOrder


@click.group("cache", cls=InOrder)
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
