"""Faults that show when a DHCP lease changes: another router, another address."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.scenarios.nat import AGENT_SUBNET
from netns_lab.scenarios.survival import INTERFACES, LEASE_HOOK, UPLINK_ROUTE, interfaces, lease_hook

SCENARIO = "policy-routing-dhcp"
SNAT_HOOK = "/etc/dhcp/dhclient-exit-hooks.d/agent-snat"
SNAT_TABLE = "agent-snat"


@fault("renewal-ignored", "The hook that sets the route ignores renewals, as Debian's own dhclient-script does",
       on=SCENARIO, breaks={"FLAP-07"}, diagnosis="TABLE_WRONG_GATEWAY")  # fmt: skip
def renewal_ignored(lab: Lab) -> None:
    lab.host.write(LEASE_HOOK, lease_hook(reasons="BOUND | REBOOT"))


@fault("fixed-gateway", "The stanza has a fixed gateway, as in the guide, and the lease may name another gateway",
       on=SCENARIO, breaks={"FLAP-07"}, diagnosis="TABLE_WRONG_GATEWAY")  # fmt: skip
def fixed_gateway(lab: Lab) -> None:
    lab.host.remove(LEASE_HOOK)
    lab.host.write(INTERFACES, interfaces(uplink=UPLINK_ROUTE, leased=True))


@fault("old-flow-translated", "A hook moves static source NAT with the lease, and running flows keep the old address",
       on=SCENARIO, breaks={"FLAP-07"}, diagnosis="SOURCE_NOT_UPLINK", needs={"nft": "nftables"})  # fmt: skip
def old_flow_translated(lab: Lab) -> None:
    rule = f"ip saddr {AGENT_SUBNET} oifname wlan0 counter snat to"
    chain = f"ip {SNAT_TABLE} postrouting"
    lab.host.run("nft", f"add table ip {SNAT_TABLE}")
    # Before the lab's masquerade, which stays for packets by other uplinks.
    lab.host.run("nft", f"add chain {chain} {{ type nat hook postrouting priority 90; }}")
    lab.host.run("nft", f"add rule {chain} {rule} 10.10.50.9")
    lab.host.write(
        SNAT_HOOK,
        f'[ "$reason" != BOUND ] || nft "flush chain {chain}; add rule {chain} {rule} $new_ip_address"\n',
    )


@fault("no-dhcp-client", "The uplink's DHCP client was killed, so its address will expire", on=SCENARIO,
       breaks={"FLAP-07"}, diagnosis="LEASE_WITHOUT_CLIENT")  # fmt: skip
def no_dhcp_client(lab: Lab) -> None:
    lab.host.run("kill", lab.host.read("/run/dhclient.wlan0.pid").strip())


@fault("client-keeps-router", "The agent's DHCP client ignores another router at a renewal",
       on="pipework-dhcp", breaks={"FLAP-07"}, diagnosis="TABLE_WRONG_GATEWAY")  # fmt: skip
def client_keeps_router(lab: Lab) -> None:
    assert lab.dhcp_client is not None
    lab.dhcp_client.follow_router = False
