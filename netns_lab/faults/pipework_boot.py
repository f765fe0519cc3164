"""Faults of whole hosts on which pipework attaches the agent: what runs it at boot does not."""

from __future__ import annotations

from netns_lab import pipework_host
from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.scenarios.pipework_boot import START_ENGINE


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


@fault("guide-recipe-at-boot", "rc.local and the post-up line are the guide's, and the boot hangs in the latter",
       on="pipework-rc-local", breaks={"NOT_IDEMPOTENT": {"PIPEWORK-05", "FLAP-03"},
       "BOOT_WAITS_FOR_ENGINE": {"FLAP-08"}}, diagnosis="BOOT_WAITS_FOR_ENGINE", flavour="host")  # fmt: skip
def guide_recipe_at_boot(lab: Lab) -> None:
    before, post_up, after = lab.host.read(pipework_host.INTERFACES).partition("post-up ")
    lab.host.write(pipework_host.INTERFACES, before + post_up + after[after.rindex("|| pipework ") + len("|| ") :])
    rc_local = lab.host.read(pipework_host.RC_LOCAL)
    lab.host.write(pipework_host.RC_LOCAL, rc_local.replace(f"{START_ENGINE}\n", ""))
