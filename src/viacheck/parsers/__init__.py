"""Parsers of text and JSON that tools and managers write. They touch no file and run nothing."""
