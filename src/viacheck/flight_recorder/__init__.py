"""The flight recorder: watches an agent's egress for hours, and writes what happened to a record of bounded size."""
