"""The last module that the process imports which commands are forked from: what each of them would do again."""

from __future__ import annotations

import gc

from decant.pipeline.data.builtin import _read_digits

_read_digits()
gc.collect()
gc.freeze()  # so that a collection of garbage in a fork copies no page of what lives for ever
