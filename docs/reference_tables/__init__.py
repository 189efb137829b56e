"""The tables of the reference, made from the code."""
