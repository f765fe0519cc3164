"""A real Docker engine for a lab: its daemon, networks, containers and image, and the engine flavour of a lab."""
