"""Throwaway hosts: descriptions, scenarios and faults, the builder, the Docker engine, the services on the wire.

A description is plain data; the builder turns it into network namespaces without names, so that all of it is gone when
this process ends, SIGKILL included.
"""
