"""Speed, memory and agreement, side by side with what else there is. Nothing here is a test.

    python -m benchmarks.report          everything; fills the tables of docs/performance.md
    python -m benchmarks.race --rows 200 one part, with its own options (--help)
    make bench                           the same on little input, and pytest-benchmark's tables

inputs.py       real rows, cells of a chosen size, files of the official layout
contestants.py  who computes what: chgnet, its ASE calculator, SevenNet, ours; loaders, trainings
worker.py       one contestant in a process of its own: cold, and its memory its own
race.py         contestants in turn on the same rows: ratios, memory, agreement
scaling.py      rows, atoms a cell, cores
roofline.py     operations and bytes counted, ceilings measured, where the gap is
session.py      reading, opening, the composition baseline, the bootstrap, collecting checks
gpu.py          as many rows as fold 0 has, from columns to energies, beside chgnet on one GPU
report.py       runs all of it and writes the tables
"""
