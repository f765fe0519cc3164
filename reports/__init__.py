"""What a person receives of a run: result.json, the HTML page and the console summary.

Everything here works from an outcome (the contract viacheck.result/1) alone: no target, no kernel and no network is
asked. That is what lets ``python -m reports result.json`` render a run again on any machine.
"""
