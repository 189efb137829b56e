"""`decant.cache.encodings`, so that `from decant.encodings import …` works too."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decant.cache.encodings import *  # noqa: F403
else:
    from decant.cache.encodings import __name__ as module

    sys.modules[__name__] = sys.modules[module]
