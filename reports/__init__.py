"""The output of a run: result.json, junit.xml, the HTML page and the console summary.

Everything here needs only the saved result (the contract viacheck.result/1), no target, kernel or network, so that
``viacheck report result.json`` renders a run again on any machine.
"""
