"""A recipe: a TOML file, read into frozen settings, with every mistake named by its path."""
