"""A twin: a host rebuilt from its snapshot as a lab, so that every check can be made there, packets included.

:func:`plan_twin` describes it and touches nothing; :func:`build_twin` makes it.
"""

from netns_lab.replica.replica_build import build_twin
from netns_lab.replica.replica_plan import NoTwin, Twin, plan_twin
from netns_lab.replica.unconfigured import WRITABLE, before_boot, leasable

__all__ = ["WRITABLE", "NoTwin", "Twin", "before_boot", "build_twin", "leasable", "plan_twin"]
