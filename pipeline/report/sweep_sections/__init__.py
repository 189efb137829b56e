"""The sections of a sweep's page, a module each: trials, settings, curves over epochs, and the frontier."""
