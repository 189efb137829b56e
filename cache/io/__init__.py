"""Files that several processes share: written whole or not at all, locked, counted."""
