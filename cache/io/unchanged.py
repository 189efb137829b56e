"""Whether a mapped file of blocks is still what was read from it."""

from __future__ import annotations

from collections.abc import Callable

from decant.cache.errors import CorruptError, RewrittenError, warn
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.mapped import MappedFile

_GONE = {
    "deleted": "was deleted while it is read; it is read on as it was, and is gone when this process ends",
    "replaced": "another file has taken its name while it is read; the one that was opened is read on",
}


class Unchanged:
    """Notices that a mapped file of blocks changes while it is read, by what the system notes of it and by checksums.

    A file that was written to may have had any bytes for a while, also where it now has the old ones: what was read in
    between cannot be relied on.
    """

    def __init__(
        self,
        mapped: MappedFile,
        checks: BlockChecks,
        name: Callable[[int], str],
        *,
        times_count: bool = True,
        hint: str = "fetch or build the file again",
    ) -> None:
        """name: of a block, for messages. times_count: whether a new time says that the file was written to; not where
        the blocks are read from a copy, or where the time says when it was last used. hint: what to do about a change.
        """
        self._mapped, self._checks, self._name = mapped, checks, name
        self._times_count, self._hint = times_count, hint
        self._stamp, self._said = mapped.stamp(), False

    def require_readable(self) -> None:
        """Raises CorruptError where a part of the file could not be read. Costs nothing; to be called after reading."""
        if self._mapped.lost:
            raise CorruptError(
                f"{self._mapped.path}: was cut short, or its disk failed, while it was read; {self._hint}"
            )

    def require(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the file is no longer as it was when it was opened, RewrittenError where it was
        written to since the last call and is as it was. Warns once where its name is gone, or another file has it.

        Looks at size and times; where these have changed, or `checksums` says so, checks every block again that was
        read.
        """
        self.require_readable()
        before, path = self._stamp, self._mapped.path
        try:
            now = self._mapped.stamp()
        except OSError as error:
            raise CorruptError(f"{path}: can no longer be read: {error.strerror}") from error
        if now.size != before.size:
            raise CorruptError(
                f"{path}: had {before.size:,} bytes when it was opened, and now has {now.size:,}; {self._hint}"
            )
        if checksums or now != before:
            self._check_again(trusted=now != before)
        self._stamp = now
        if now.written != before.written and self._times_count:
            raise RewrittenError(
                f"{path}: was written to while it was read, and is as it was before; what was read in between may be "
                "wrong"
            )
        self._warn_of_name()

    def _check_again(self, *, trusted: bool) -> None:
        changed = self._checks.changed(trusted=trusted)
        self.require_readable()
        if changed:
            raise CorruptError(
                f"{self._mapped.path}: {self._name(changed[0])} has changed since it was read; {self._hint}"
            )

    def _warn_of_name(self) -> None:
        name = self._mapped.name()
        if name != "same" and not self._said:
            self._said = True
            warn(f"{self._mapped.path}: {_GONE[name]}")
