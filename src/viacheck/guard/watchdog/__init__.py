"""The watchdog: a process that restores a saved state when the run that made the change cannot.

``process`` is the process itself, ``handle`` the run's view of it. This package and everything that it imports use the
standard library only, because the process starts without site-packages.
"""
