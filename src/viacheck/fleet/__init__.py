"""Many hosts at once: the inventory, the transport by OpenSSH, and the run."""
