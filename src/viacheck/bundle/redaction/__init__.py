"""Redaction: which values never leave a host, and how addresses and names are mapped."""
