"""A replica: a host rebuilt from its snapshot as a lab, so that every check can be made there, packets included.

:func:`plan_replica` describes it and touches nothing; :func:`build_replica` makes it.
"""

from netns_lab.replica.replica_build import build_replica
from netns_lab.replica.replica_plan import ReplicaImpossible, ReplicaPlan, plan_replica
from netns_lab.replica.unconfigured import WRITABLE, leasable, unconfigured

__all__ = ["WRITABLE", "ReplicaImpossible", "ReplicaPlan", "build_replica", "leasable", "plan_replica", "unconfigured"]
