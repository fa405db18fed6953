"""The signals, one file for each source. Each keeps its kernel files open and reads raw cumulative counters.

A source is built with the roots it reads from, so that a test can give it its own tree. It decides nothing and keeps no
time.
"""
