"""Benchmarks, as ratios within one run: `python -m bench`.

`__main__` lists the parts. On a core of its own: `predictions` and `bare` (us and the limit),
`rivals`, `accounts`, `sharing`, `sustained`, `overload` with `open_loop`, `startup`, `monitoring`.
On the whole machine: `floods`, `swaps`, `models`, `billing` with `rows`, `training`.

They share `samples` (models and requests), `servers`, `cores` (who runs where), `load` with
`wrk.lua`, `comparison` (rounds), `timing`, and `figures`. `results` and `chart` write the table.
"""
