"""Services of a lab: DHCP server and client, DNS forwarder, responders, a switch's port security, link watcher."""
