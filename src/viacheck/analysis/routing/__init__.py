"""The routing model: which route the kernel gives a packet, computed from a snapshot alone."""
