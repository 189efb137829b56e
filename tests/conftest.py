"""What every test runs under: one thread a process, so that the suite's processes do not fight over the cores."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported; the commands that tests run inherit it
os.environ["NO_COLOR"] = "1"
os.environ.pop("DECANT_STORE", None)
