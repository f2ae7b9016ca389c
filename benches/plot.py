#!/usr/bin/env python3
"""Plots what `cargo bench --bench end_to_end` printed.

    cargo bench --bench end_to_end many prompt | tee bench.out
    python3 -m venv /tmp/plot && /tmp/plot/bin/pip install matplotlib==3.10.7
    /tmp/plot/bin/python benches/plot.py bench.out docs/plots

Writes cost.svg, the processor time and the memory that a file costs by how many there are, and
latency.svg, from the producer's last step to the result, before and after.
"""

import pathlib
import re
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "kms-sig"  # the same input gives the same bytes
from matplotlib import pyplot  # noqa: E402

COST = re.compile(r"^ +(\d+) files: ([\d.]+) ms of processor time a file, peak (\d+) MiB$", re.M)
LINE = re.compile(r"^(.+?) {2,}([\d.]+) (s|µs)( |$)", re.M)


def save(figure, path):
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    print(path)


def cost(text, path):
    rows = sorted({(int(n), float(ms), int(mib)) for n, ms, mib in COST.findall(text)})
    if len(rows) < 2:
        sys.exit("the input has not the lines of the part `many`: run it")
    numbers, times, peaks = zip(*rows)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(6, 5))
    above.plot(numbers, times, marker="o")
    above.set_ylabel("processor time a file, ms")
    below.plot(numbers, peaks, marker="o")
    below.set_ylabel("peak of memory, MiB")
    below.set_xlabel("files signed with a local key")
    below.set_xscale("log")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    save(figure, path)


def latency(text, path):
    times = [(what.strip(), float(t) * (1000 if unit == "s" else 0.001)) for what, t, unit, _ in LINE.findall(text)]
    begin = next((at for at, (what, _) in enumerate(times) if what.startswith("a file renamed")), None)
    if begin is None:
        sys.exit("the input has not the lines of the part `prompt`: run it")
    bars = []
    for what, ms in times[begin:]:
        if what.startswith(("a file renamed", "a valid pair moved")):
            of = what.removesuffix(', settle = "2s" alone')
            bars.append((f"{of}: settle = \"2s\" alone, median", ms))
        elif what.startswith("the same by default"):
            bars.append(("by default, median", ms))
        elif what.startswith("the same, written there"):
            bars.append(("written there, by default, median", ms))
        elif what.startswith("the 99th percentile"):
            bars.append(("99th percentile", ms))
    figure, axes = pyplot.subplots(figsize=(6, 0.4 * len(bars) + 1))
    axes.barh(range(len(bars)), [ms for _, ms in bars])
    axes.set_yticks(range(len(bars)), [what for what, _ in bars])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from the producer's last step to the result")
    for at, (_, ms) in enumerate(bars):
        axes.text(ms, at, f" {ms:.3g}", va="center")
    save(figure, path)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    into = pathlib.Path(sys.argv[2])
    into.mkdir(parents=True, exist_ok=True)
    cost(text, into / "cost.svg")
    latency(text, into / "latency.svg")


main()
