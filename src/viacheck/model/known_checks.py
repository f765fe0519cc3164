"""The ids of viacheck's own checks, which are a contract: some are added, none is renamed."""

CHECK_IDS = frozenset(
    f"{chapter}-{number:02d}"
    for chapter, most in {
        "HOST": 7, "NAT": 3, "MACVLAN": 6, "PIPEWORK": 5, "ROUTE": 7, "EGRESS": 10, "PERSIST": 2, "FLAP": 12,
        "WATCH": 2,
    }.items()
    for number in range(1, most + 1)
)  # fmt: skip
"""Every id that ``@check`` or ``viacheck watch`` uses."""
