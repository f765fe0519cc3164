"""Netlink: one codec for routing, nftables and the kernel's notifications."""
