"""Events that interrupt a host's network, the stream of probes through them, and what the flows show."""
