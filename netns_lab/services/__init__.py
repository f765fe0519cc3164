"""Services on a lab's wire: DHCP, DNS, responders, a switch's port security, link hooks."""
