"""`decant cache merge --how parts`: machines without a common folder, each with a store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import decant, only, refused, succeed

FEW = ("--recipe", "digits", "--set", "teacher.epochs=1", "--set", "cache.batch_size=100")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three parts of a cache in `1`, `2` and `3`, and the cache of one pass in `whole`."""
    folder = tmp_path_factory.mktemp("merging")
    succeed(decant("teacher", *FEW, cwd=folder))
    succeed(decant("cache-logits", *FEW, "--store", "whole", cwd=folder))
    for part in ("1", "2", "3"):
        succeed(decant("cache-logits", *FEW, "--store", part, "--part", f"{part}/3", cwd=folder))
    return folder


def unfinished(folder: Path, *parts: str) -> list[Path]:
    return [only(folder / part, "*.partial").relative_to(folder) for part in parts]


def test_parts_of_several_stores_become_the_file_of_one_pass(parts: Path) -> None:
    files = unfinished(parts, "2", "3", "1")
    said = succeed(decant("cache", "merge", "--how", "parts", *files, "--store", "merged", cwd=parts))
    made = only(parts / "merged", "*.h5")
    assert f"made merged/{made.name}" in said
    assert made.read_bytes() == only(parts / "whole", "*.h5").read_bytes()
    found = succeed(decant("cache-logits", *FEW, "--store", "merged", cwd=parts))
    assert "nothing to do, no teacher was loaded" in found


def test_a_missing_part_is_named_as_the_option_that_makes_it(parts: Path) -> None:
    command = ("cache", "merge", "--how", "parts", *unfinished(parts, "1", "3"), "--store", "two")
    said = refused(decant(*command, "--parts", "3", cwd=parts))
    assert "missing are rows 500 to 999" in said
    assert "make them with `decant cache-logits --part` 2/3" in said
    assert "--parts N names which I" in refused(decant(*command, cwd=parts))


def test_how_many_parts_there_are_matters_to_parts_alone(parts: Path) -> None:
    cache = only(parts / "whole", "*.h5")
    assert "--parts belongs to --how parts" in refused(
        decant("cache", "merge", cache, cache, "--parts", "3", cwd=parts), code=2
    )


def test_a_cache_is_checked_in_parts(parts: Path) -> None:
    cache = only(parts / "whole", "*.h5").relative_to(parts)
    said = succeed(decant("cache", "verify", cache, "--part", "2/3", cwd=parts))
    assert said == f"{cache}: part 2 of 3, sound\n"
    content = bytearray((parts / cache).read_bytes())
    content[-20_000] ^= 1  # in a table that every block has rows of, near the end
    (parts / "flipped.h5").write_bytes(content)
    codes = [
        decant("cache", "verify", "flipped.h5", "--part", f"{part}/2", cwd=parts).returncode
        for part in (1, 2)
    ]
    assert sum(codes) == 1, "the one part that has the block finds it"
    for words in (("--against-teacher", "5"),):
        assert "--part checks checksums" in refused(
            decant("cache", "verify", *words, "--part", "1/2", cwd=parts), code=2
        )
