"""What is wrong with the students of a recipe, said before its teacher has taken hours."""

from __future__ import annotations

from collections.abc import Callable

from decant.pipeline.errors import NotMadeError, PipelineError
from decant.pipeline.ranks.launch import is_first
from decant.pipeline.support.notices import say_once


def say_if_untrainable(
    require_trainable: Callable[[], None], how: str = "the recipe's own students cannot be trained"
) -> None:
    """Says once what `require_trainable` raises, and before it `how`. It is not refused: students of other
    recipes may take this teacher and its cache. Students that begin with a teacher that is not finished are not looked
    at.

    >>> import contextlib, io
    >>> def require_trainable():
    ...     raise PipelineError("network 'resnet': unknown")
    >>> with contextlib.redirect_stderr(io.StringIO()) as stderr:
    ...     say_if_untrainable(require_trainable)
    >>> print(stderr.getvalue().strip())
    the recipe's own students cannot be trained: network 'resnet': unknown
    """
    if not is_first():
        return
    try:
        require_trainable()
    except NotMadeError:
        return
    except (PipelineError, OSError) as error:
        say_once(f"{how}: {error}")
