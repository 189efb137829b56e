"""The files that `decant init` writes: a recipe, a dataset and a network to begin with."""
