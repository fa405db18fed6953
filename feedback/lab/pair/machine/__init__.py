"""The machine under a director: a namespace of the guest's own kernel, or another kernel within the guest.

Owns how a director's table is read and its daemons are started, wherever they are. Must not know who decides which
director is active. Invariant: a machine's processes are in the director's network namespace, so that who kills those
kills the machine.
"""

from feedback.lab.pair.machine.foreign import Foreign
from feedback.lab.pair.machine.machine import Machine, Namespaced

__all__ = ["Foreign", "Machine", "Namespaced"]
