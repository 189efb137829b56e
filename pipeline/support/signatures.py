"""What a function of the user's takes, whatever its annotations name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

if sys.version_info >= (3, 14):
    from annotationlib import Format


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """`inspect.signature` without looking up what annotations name, which may be imported for type checkers alone:
    since Python 3.14 it would evaluate them. Raises TypeError or ValueError where there is none to be had.

    >>> list(signature(lambda logits, labels, weight=1.0: None).parameters)
    ['logits', 'labels', 'weight']
    """
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)
