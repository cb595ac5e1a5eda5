"""Compiled array functions: arrays in, caller-allocated arrays out, counts back."""
