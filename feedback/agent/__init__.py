"""The agent on a real server: signals -> load -> reports to every master. It decides nothing about the pool.

Everything here but load.py and agentcheck.py is a shell. Neither click, structlog, asyncio, hashlib nor dataclasses is
imported, nor model.py: an agent's budget is 24 MB and 0.3 % of a core (bench/agent_cost.py). All of it runs on Python
3.9.
"""
