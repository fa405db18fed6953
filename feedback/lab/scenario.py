"""A scenario: variants that each run in a guest, figures that the host draws from their files, and bounds.

`run` is the guest's side, everything else the host's. A variant is one policy, or the whole scenario where it does not
compare any. Invariant: `figures` reads files only, so a finished run can be judged again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.trace import Trace
from feedback.lab.workload.records import Record


class Scenario(ABC):
    name: str  # of its file
    summary: str
    variants: tuple[str, ...]
    seconds: float  # of load in one variant, unless the options say otherwise
    seconds_least: float
    quotas: tuple[float, ...]
    law: str  # of the policy feedback, unless the options say otherwise
    scheduler: str
    bounds: tuple[Bound, ...]
    paired = False  # there are two directors, which may have a firewall
    sources: tuple[str, ...] = ()  # other ones than agents: each is a variant, played where the options name it
    conn_tab_bits = 0  # of the kernel's table of connections; 0: as it comes

    def played(self, options: Options, only: Sequence[str] = ()) -> list[str]:
        """The variants that these options choose, in their order."""
        named = (*self.variants, *([options.source] if options.source else ()))
        return [variant for variant in named if not only or variant in only]

    @abstractmethod
    def run(self, job: Job, output: Path) -> None:
        """In the guest: the variant job.variant, its files into `output`. Raises LabError."""

    @abstractmethod
    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        """A flat map of numbers. A variant that was not run leaves its figures out."""

    def measured(self, trace: Trace, options: Options) -> list[Record]:
        """The requests of a variant from which its p99 is computed, in the figures and, while the trace grows, in the
        live view."""
        return trace.records


class PairScenario(Scenario):
    """A scenario of two directors, which may have a firewall. Its servers are as fast as the guest; what differs is
    said."""

    paired = True
    quotas = ()
    law = "capacity"
    scheduler = "wlc"
