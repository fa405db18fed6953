"""The agent on a real server: signals -> load -> reports to every master. It decides nothing about the pool.

Everything here but load.py is a shell. No click, structlog, asyncio or rich is imported: an agent has 40 MB and half a
percent of a core.
"""
