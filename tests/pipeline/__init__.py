"""The whole pipeline on generated inputs: reports -> controller -> encoded edits -> state file -> restored controller.

master.py runs one master as its daemon does, on a table (table.py), a state file and a clock that the caller moves;
servers.py makes what honest agents and the kernel would say. On them stand: hostile.py, what a compromised agent sends;
invariants.py, what must hold after each step; storm.py, both in one run; histories.py, reloads, failures and restarts
after which a pool must be at its file's ratios; scripts.py, whole histories whose edits are compared between two
checkouts by `python -m bench.golden`.

`python -m tests.pipeline` runs as many of them as one likes.
"""
