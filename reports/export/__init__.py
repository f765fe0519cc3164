"""A saved result in the forms of other tools, one file for each; each needs the result alone."""
