"""The operations of `decant.views`, so that `from decant.views import …` works too."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decant.pipeline.own_loop.operations import *  # noqa: F403
else:
    from decant.pipeline.own_loop.operations import __name__ as module

    sys.modules[__name__] = sys.modules[module]
