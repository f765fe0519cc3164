"""Probes and captures: the packets sent and seen on a wire, with the proof that the capture missed none."""
