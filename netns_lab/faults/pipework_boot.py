"""Faults of whole hosts on which pipework attaches the agent: what runs it at boot does not."""

from __future__ import annotations

from netns_lab import pipework_host
from netns_lab.faults.fault import fault
from netns_lab.lab import Lab


@fault("boot-rc-local-not-executable", "rc.local is not executable, so nothing runs pipework at boot",
       on="pipework-rc-local", breaks={"PIPEWORK-05", "FLAP-08"}, diagnosis="PIPEWORK_NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def boot_rc_local_not_executable(lab: Lab) -> None:
    lab.host.run("systemctl", "disable", "--quiet", "pipework-watch.service")
    lab.host.run("chmod", "644", pipework_host.RC_LOCAL)


@fault("pipework-unit-not-enabled", "The unit that runs pipework at boot is not enabled",
       on="pipework-unit", breaks={"PIPEWORK-05", "FLAP-08"}, diagnosis="PIPEWORK_NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def pipework_unit_not_enabled(lab: Lab) -> None:
    lab.host.run("systemctl", "disable", "--quiet", "pipework.service", "pipework-watch.service")
