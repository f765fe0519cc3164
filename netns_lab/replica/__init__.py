"""A replica: a host rebuilt from its snapshot as a lab, in which every check can be made, packets included.

:func:`plan_replica` describes a replica and does not touch the kernel; :func:`build_replica` builds it.
"""

from netns_lab.replica.replica_build import build_replica
from netns_lab.replica.replica_plan import ReplicaImpossible, ReplicaPlan, plan_replica
from netns_lab.replica.unconfigured import WRITABLE, leasable, unconfigured

__all__ = ["WRITABLE", "ReplicaImpossible", "ReplicaPlan", "build_replica", "leasable", "plan_replica", "unconfigured"]
