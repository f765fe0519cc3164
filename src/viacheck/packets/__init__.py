"""Probes and captures: what is sent on a wire, what was seen there, and the proof that nothing was missed."""
