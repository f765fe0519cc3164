"""Throwaway hosts: descriptions, scenarios and faults, the builder, the engine, the neighbours on the wire.

A description is plain data and touches nothing; the builder turns one into network namespaces without names, so that
everything is gone when the process is, SIGKILL included.
"""
