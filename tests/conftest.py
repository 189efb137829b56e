"""What every test runs under: one thread a process, so that the suite's processes do not fight over the cores."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported; the commands that tests run inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NO_COLOR"] = "1"
# Or each of some hundred processes would compile the package again, and each worker every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.pop("DECANT_STORE", None)

# A machine may be slow or busy: what is tested is what comes out, not when. No test changes its folder's fixture. The
# examples are the same each time, so that a change is judged by what it changes; DECANT_RANDOM=1 draws others.
hypothesis.settings.register_profile(
    "any-machine",
    deadline=None,
    derandomize=os.environ.get("DECANT_RANDOM", "0") != "1",
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def usual_store() -> Iterator[None]:
    """A command with --store names it to the processes that it starts, through the environment: not to later tests."""
    yield
    os.environ.pop("DECANT_STORE", None)
    os.environ.pop("PYTHONSAFEPATH", None)  # which a command leaves to the processes that it starts


@pytest.fixture(autouse=True)
def usual_trust() -> Iterator[None]:
    """What a file named in one test is not named in the next, as in a new process."""
    yield
    trust = sys.modules.get("decant.pipeline.support.trust")
    if trust is not None:
        trust.forget()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write into; those of pytest are closed again by each new session."""
    with tempfile.TemporaryDirectory(prefix="decant-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def pytest_collection() -> None:
    """Thousands of tests and what they import live to the end: while they are made there is no garbage to look for."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor does a collection of garbage, or a process that is forked, go through them again."""
    gc.collect()
    gc.freeze()
    gc.enable()
