"""Signatures: a subset of Suricata's rules, and plain regular expressions, over payloads and application rows."""
