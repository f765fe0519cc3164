"""A benchmark as a page of Markdown, for the terminal and for docs/."""

from __future__ import annotations

from viacheck.bench.figures import Bench, Figure, Unit

_DIGITS = 3
NO_VALUE = ""


def page(bench: Bench) -> str:
    """Return the page: the machine, and a table of medians, ratios to viacheck's own figure, and limits."""
    machine = "; ".join(f"{name} {value}" for name, value in bench.machine.items())
    rows = ["| measured | median | spread | ratio | to reach | |", "| --- | --- | --- | --- | --- | --- |"]
    remarks: list[str] = []
    for measurement in bench.measurements:
        rows.append(f"| **{measurement.title}** (`{measurement.name}`) | | | | | |")
        for figure in measurement.figures:
            note = ""
            if figure.remark and figure.values:
                remarks.append(figure.remark)
                note = f" [{len(remarks)}]"
            rows.append("| " + " | ".join((figure.what + note, *_cells(figure))) + " |")
    quick = ", by --quick: few repetitions" if bench.quick else ""
    lines = ["# Speed", "", f"Measured by `./viacheck bench` on {bench.taken[:10]}{quick}. Machine: {machine}.", ""]
    lines += [*rows, ""]
    lines += [
        "Spread is the least and the greatest value, with the number of repetitions. The ratio is to the first line of "
        "the group, measured in the same run; on another machine a ratio is more alike than a time.",
        "",
    ]
    lines += [f"{number}. {remark}" for number, remark in enumerate(remarks, 1)]
    return "\n".join(lines).rstrip() + "\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    if figure.median is None:
        return (figure.remark or "not measured", NO_VALUE, NO_VALUE, _limit(figure), NO_VALUE)
    least, most = min(figure.values), max(figure.values)
    spread = f"{_number(least)} to {_number(most)} ({len(figure.values)})" if len(figure.values) > 1 else "(1)"
    ratio = f"{_number(figure.ratio)}" if figure.ratio is not None else NO_VALUE
    reached = {True: "reached", False: "**missed**", None: NO_VALUE}[figure.reached]
    return (_with_unit(figure.median, figure.unit), spread, ratio, _limit(figure), reached)


def _limit(figure: Figure) -> str:
    if figure.limit is None:
        return NO_VALUE
    limits = []
    for sign, value in (("≤", figure.limit.at_most), ("≥", figure.limit.at_least)):
        if value is not None:
            shown = f"{value:g} times" if figure.limit.of == "ratio" else _with_unit(value, figure.unit)
            limits.append(f"{sign} {shown}")
    return ", ".join(limits)


def _with_unit(value: float, unit: Unit) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    """Return three digits, never in scientific notation."""
    if value >= 10 ** (_DIGITS - 1):
        return f"{value:,.0f}"
    return f"{float(f'{value:.{_DIGITS}g}'):g}"
