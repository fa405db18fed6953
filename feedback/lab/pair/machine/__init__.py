"""The machine under a director: a namespace of the guest's own kernel, or another kernel within the guest.

These modules own how a director's table is read and how its daemons are started, on either kernel. They must not know
which program decides which director is active. Invariant: a machine's processes are in the director's network
namespace, so killing those kills the machine.
"""

from feedback.lab.pair.machine.foreign import Foreign
from feedback.lab.pair.machine.machine import Machine, Namespaced

__all__ = ["Foreign", "Machine", "Namespaced"]
