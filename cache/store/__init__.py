"""A folder of caches: finds one by its key, builds it once, says what can go."""
