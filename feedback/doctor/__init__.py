"""What is wrong on this machine, and the command that fixes it. Pure: facts in, findings out; the command collects.

`kernel` judges IPVS's settings and table, `firewall` the firewall beside it, `steering` marks and ranges, `neighbours`
who answers ARP, and `daemons` what runs here and which peers it hears.
"""

from feedback.doctor.facts import Configuration, Facts, Finding, Interface, Level, Steered
from feedback.doctor.findings import examine, verdict

__all__ = ["Configuration", "Facts", "Finding", "Interface", "Level", "Steered", "examine", "verdict"]
