"""Puts the tables of the reference into the pages: mkdocs calls this file while it builds the site.

A page says `<!-- generated: settings -->` where a table belongs. The names are the keys of `TABLES`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from reference_tables.api import api
from reference_tables.code import messages, tree
from reference_tables.commands import commands
from reference_tables.recipe import networks, objectives, operations, recipes, settings

TABLES = {
    "api": api,
    "commands": commands,
    "messages": messages,
    "networks": networks,
    "objectives": objectives,
    "operations": operations,
    "recipes": recipes,
    "settings": settings,
    "tree": tree,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for each page."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda found: TABLES[found[1]](), markdown)
