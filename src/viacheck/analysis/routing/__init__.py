"""The routing model: which way the kernel sends a packet, computed from a snapshot alone."""
