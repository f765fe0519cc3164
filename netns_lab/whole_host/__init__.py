"""Whole hosts: a Debian with systemd as PID 1 in namespaces of its own, which is really rebooted."""
