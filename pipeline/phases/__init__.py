"""The phases: teacher, cache-logits, student and evaluate, each a function of a recipe and its folders."""
