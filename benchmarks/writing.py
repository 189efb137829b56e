"""Writing a cache from nothing to its published name, and verifying it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement
from benchmarks.timing import interleaved
from decant.cache import CacheWarning, LogitCache, LogitCacheWriter, Manifest

_BATCH = 4096
