"""Measurements behind every speed claim; see README.md here."""
