"""Measurements that anyone can repeat: ratios within one run, medians with their spread.

    python -m bench NAME [--longer]    measures one, writes results/NAME.json, and renders docs/benchmarks.md
    python -m bench all [--longer]     measures all, one after another
    python -m bench render [--check]   renders docs/benchmarks.md from the results that are there

Each benchmark is a module of this package, and has what `catalogue.Bench` says.
"""
