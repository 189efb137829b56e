"""`decant cache push` and `pull`: caches into stores elsewhere, and copies of what lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PLACE
from decant.pipeline.cli.options import as_json, command_line, print_json, say, store_option

if TYPE_CHECKING:
    from decant.cache import Store


@click.command("push")
@click.argument("name", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@click.argument("target", metavar="STORE", type=PLACE)
@store_option
@as_json
def push(name: str, target: str, store: Store, as_json: bool) -> None:
    """Publish a cache in a store elsewhere.

    STORE is a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://datasets/OWNER/NAME. Every block is checked
    first. The file appears there in one step, and never in place of another. On the Hub, the dataset's README.md says
    what the cache is.
    """
    from decant.cache import Store, push_cache

    done = push_cache(store.resolve(name), target)
    if done.made:
        say(f"made {done.shown}")
    elif done.same:
        say(f"found {done.shown}: the same bytes")
    else:
        say(f"found {done.shown}: of the same key, with other logits; it stays as it is")
    if done.note:
        say(f"warning: {done.note}", err=True)
    if as_json:
        print_json({"url": done.shown, "made": done.made, "same": done.same})
    say(f"next: {command_line('cache', 'ls', '--store', Store(target).name)}")


@click.command("pull")
@click.argument("name", metavar="KEY|NAME|URL", type=PLACE)
@store_option
@as_json
def pull(name: str, store: Store, as_json: bool) -> None:
    """Fetch a cache from a store elsewhere.

    It is named by its address, or by its key or name in the store. Every block is checked. A fetch that was cut off
    goes on. A copy that is here is compared with what is there, and only what is new or damaged is fetched.
    """
    path = store.pull(name)
    say(f"{path}: sound")
    if as_json:
        print_json({"path": path})
    say(f"next: {command_line('cache', 'info', path)}")
