"""The packet filter model: what a snapshot's nftables and iptables rules do to a packet."""
