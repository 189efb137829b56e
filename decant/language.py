"""`decant.pipeline.language`, so that `from decant.language import …` works too."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decant.pipeline.language import *  # noqa: F403
else:
    from decant.pipeline.language import __name__ as module

    sys.modules[__name__] = sys.modules[module]
