"""The signals, one file for each source. Each keeps its kernel files open and reads raw cumulative counters.

A source is built with the roots it reads from, so that a test gives it a tree of its own. It decides nothing and keeps
no time.
"""
