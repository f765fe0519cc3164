"""Pure analysis of a snapshot: the resolved intent, routing, packet filter, explanation and prediction."""
