"""A host's namespaces, commands and state: what is read of a target, and how its namespaces are entered."""
