"""Signatures: rules in a subset of Suricata's language and plain regular expressions, over payloads and application rows."""
