"""Load-informed scheduling for Linux Virtual Server.

The loop, in the order of the folders: `agent` measures a real server and reports; `master` turns reports into settings;
`ipvs` puts them into the kernel. `sync` keeps a standby director complete, `ops` holds what every daemon needs to be a
good service, `cli` is the operator's face, and `lab` is a whole cluster on one machine.
"""

__version__ = "0.1.0"
