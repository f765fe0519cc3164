"""A real Docker engine in a lab's host, its image and its agent."""
