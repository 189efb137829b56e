"""`decant.pipeline.objectives`, so that `from decant.objectives import …` works too."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decant.pipeline.objectives import *  # noqa: F403
else:
    from decant.pipeline.objectives import __name__ as module

    sys.modules[__name__] = sys.modules[module]
