"""A report as plain sentences."""

from __future__ import annotations

from sharedgrad.checking.report import Report


def plain(report: Report) -> str:
    """The verdict and its explanations, a line each."""
    lines = [f"Verdict: {report.verdict}"]
    for e in report.explanations:
        notes = f" ({e.notes})" if e.notes else ""
        lines.append(f"{', '.join(e.arrays)}: {e.title}{notes}")
        lines += [f"  {text}" for text in (e.why, e.fix) if text]
    return "\n".join([*lines, *report.remarks])
