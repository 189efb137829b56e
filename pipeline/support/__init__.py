"""What the rooms share: progress bars, and code that a recipe names."""
