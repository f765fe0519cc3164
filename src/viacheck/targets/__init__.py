"""Targets: a lab, this host, a bundle or a replica, opened the same way for every check."""
