"""Verification that a containerised network agent's packets take the intended way, now and after a flap or reboot."""

__version__ = "0.1.0"
