"""File systems of clusters, clouds and containers, which lack what those of a disk have: a cache is made and read there
all the same, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import refused_calls
from tests.helpers.caches import build, manifest
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished

SCRIPT = """
import errno, os, stat, sys
from pathlib import Path
from decant.cache import LogitCache, push_cache
from tests.helpers.caches import build, holds_the_answers, manifest
from tests.helpers.refused_calls import refuse

sync = os.fsync

def sync_files(fd):
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise PermissionError(errno.EACCES, "Permission denied")
    sync(fd)

os.fsync = sync_files
refuse({"fallocate": errno.EPERM, "link": errno.EXDEV, "mmap": errno.ENODEV, "flock": errno.ENOTSUP,
        "fchmod": errno.EPERM})
folder = Path(sys.argv[1])
path = build(folder / "x.h5", manifest())
assert push_cache(path, folder / "store").made
cache = LogitCache.open(folder / "store" / "x.h5", verify="open")
assert holds_the_answers(cache)
print(sorted(found.name for found in folder.rglob("*") if found.is_file()))
"""


@pytest.mark.skipif(not refused_calls.known(), reason="seccomp")
def test_a_cache_is_made_and_read_where_a_file_system_lacks_all_it_can(tmp_path: Path) -> None:
    assert finished(fork_python(SCRIPT, tmp_path)) == "['x.h5', 'x.h5']\n"
    expected = build(tmp_path / "expected.h5", manifest()).read_bytes()
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "store" / "x.h5").read_bytes() == expected
