"""Run folders: what a finished network leaves, and how it is opened again."""
