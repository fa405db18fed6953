"""The decoders: everything in the product that reads what somebody else wrote."""

from tests.fuzz.targets import agent, checks, files, http, importers, kernel, pair, sources

TARGETS = (
    *agent.TARGETS,
    *pair.TARGETS,
    *kernel.TARGETS,
    *files.TARGETS,
    *http.TARGETS,
    *importers.TARGETS,
    *checks.TARGETS,
    *sources.TARGETS,
)
