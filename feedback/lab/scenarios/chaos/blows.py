"""The faults of `chaos`: how each is caused and undone, and what the daemons are asked meanwhile. Findings become
events, which the host judges. Owns no bound and no figure."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.injuries import BadLink, Descriptors, SmallDisk, WallClock, cpu_seconds
from feedback.lab.listener import LOOKS, Listener
from feedback.lab.product import PORT, Product
from feedback.lab.stand import DIRECTOR, Stand
from feedback.lab.topology import NETWORK
from feedback.master import state

AGENT_CHECK_PORT = 3333
HTTP_PORT = 8080
ORDER_SECONDS = 600.0
HOUR = 3600.0
STRANGERS = 4  # connections of strangers, to a port whose daemon can accept none
PATIENCE_SECONDS = 10.0
LISTEN_SECONDS = 0.5

Act = Callable[[], object]
Asked = Callable[[], bool]
Undo = contextlib.ExitStack


class Blow(NamedTuple):
    """It lasts `seconds`, and after it is undone nothing is done for `calm` seconds. `asked` is whether what could not
    answer answers again."""

    name: str
    seconds: float
    calm: float
    strike: Act
    mend: Act
    asked: Asked = lambda: True


def make_product(stand: Stand, disk: SmallDisk, *, scheduler: str | None, law: str) -> Product:
    """The product with every port that strangers can try, and its state on the small disk."""
    director = stand.topology.directors[0].address
    return Product(
        stand,
        scheduler=scheduler,
        law=law,
        servers=stand.topology.servers,
        state=disk.directory,
        master_tables=f'[http]\nlisten = "{director}:{HTTP_PORT}"\n',
        agent_tables=f'[agent_check]\nlisten = "0.0.0.0:{AGENT_CHECK_PORT}"\nallow = ["{NETWORK}"]\n',
    )


class Blows:
    """Use as a context manager: whatever is still in force at its end is undone."""

    def __init__(self, stand: Stand, product: Product, disk: SmallDisk) -> None:
        self.stand, self.product, self.disk = stand, product, disk
        self.undo = contextlib.ExitStack()
        self.clock = WallClock()
        self.undo.callback(self.clock.close)
        master, space = product.master_address, stand.topology.namespace
        self.links = [BadLink(space(s.name), f"dst_ip {master} dst_port {PORT}") for s in product.servers]
        self.links.append(BadLink(space(DIRECTOR), f"src_ip {master} src_port {PORT}"))
        for link in self.links:
            self.undo.callback(link.close)

    def __enter__(self) -> Blows:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()

    def table(self) -> tuple[Blow, ...]:
        first, _second, third, last = self.product.servers
        stop, go = (partial(self.stand.processes.signal, what=what) for what in (signal.SIGSTOP, signal.SIGCONT))
        kill = self.stand.processes.kill
        return (
            self._bad_link("loss", 8.0, 5.0, "loss 20%"),
            self._bad_link("delay", 6.0, 4.0, "delay 300ms 200ms"),
            self._bad_link("duplicates", 4.0, 2.0, "duplicate 50%"),
            Blow("agent_stalled", 5.0, 3.0, lambda: stop(_agent(last.name)), lambda: go(_agent(last.name))),
            Blow("agent_killed", 3.0, 3.0, lambda: kill(_agent(third.name)), lambda: self._start(2)),
            Blow("master_stalled", 5.0, 3.0, lambda: stop("master"), lambda: go("master")),
            Blow("master_killed", 3.0, 4.0, lambda: kill("master"), self.product.start_master),
            *((Blow("clock", 4.0, 4.0, self._clock_forward, self._clock_back),) if self.clock.ours() else ()),
            self._exhausted("agent_descriptors", _agent(first.name), 5.0, 3.0, self._knock_at_agent, self._ask_agent),
            self._exhausted("master_descriptors", "master", 6.0, 5.0, self._knock_at_master, self._ask_master),
            Blow("disk", 4.0, 7.0, self._fill_disk, self._free_disk),
        )

    # The agents' link.

    def _bad_link(self, name: str, seconds: float, calm: float, netem: str) -> Blow:
        def strike() -> None:
            for link in self.links:
                link.hurt(netem)

        def mend() -> None:
            passed, dropped = (sum(counts) for counts in zip(*(link.packets() for link in self.links), strict=True))
            self.stand.event(f"{name} found", passed=passed, dropped=dropped)
            for link in self.links:
                link.mend()

        return Blow(name, seconds, calm, strike, mend)

    # Processes.

    def _start(self, index: int) -> None:
        self.product.start_agent(self.product.servers[index])

    # The wall clock: orders end by it, and nothing else uses it.

    def _clock_forward(self) -> None:
        self._hold()
        self.clock.step(HOUR)

    def _clock_back(self) -> None:
        expired = not self._orders()
        self._hold()
        self.clock.step(-2 * HOUR)
        time.sleep(1.0)
        left = [order["left_seconds"] for order in self._orders()]
        self.stand.event("clock found", expired=expired, left_seconds=sum(left))
        self._lift(1)
        self.clock.close()

    def _hold(self) -> None:
        """Give an order that keeps the second server at its weight."""
        server = self.product.servers[1]
        weight = self._weight(1)
        self.product.say("override", destination=str(server.address), weight=weight, seconds=ORDER_SECONDS)

    def _lift(self, index: int) -> None:
        self.product.say("undrain", destination=str(self.product.servers[index].address))

    def _orders(self) -> list[dict[str, float]]:
        found: list[dict[str, float]] = self.product.say("orders")["orders"]
        return found

    # Descriptors.

    def _exhausted(
        self, name: str, process: str, seconds: float, calm: float, knock: Callable[[Undo], None], asked: Asked
    ) -> Blow:
        undo = self.undo.enter_context(contextlib.ExitStack())

        def strike() -> None:
            pid = self.stand.processes.running[process].pid
            listener = Listener(self.product.control)
            time.sleep(LISTEN_SECONDS)
            before, used, began = listener.heard.copy(), cpu_seconds(pid), time.monotonic()

            def tell() -> None:
                passed = time.monotonic() - began
                names = [*(server.name for server in self.product.servers), LOOKS]
                heard = {each: (listener.heard[each] - before[each]) / passed for each in names}
                share = (cpu_seconds(pid) - used) / passed
                self.stand.event(f"{name} found", cpu_share=share, heard_per_second=heard)

            descriptors = Descriptors(pid)
            undo.callback(descriptors.close)
            descriptors.exhaust()
            knock(undo)
            undo.callback(tell)  # runs first, as the last one added: while the fault is still in force

        return Blow(name, seconds, calm, strike, undo.close, asked)

    def _knock_at_agent(self, undo: Undo) -> None:
        self._knock(undo, DIRECTOR, self._agent_address, AGENT_CHECK_PORT)

    def _knock_at_master(self, undo: Undo) -> None:
        """Let strangers connect to the master, and make an agent reconnect meanwhile."""
        for port in (PORT, HTTP_PORT):
            self._knock(undo, "client", self._master_address, port)
        self.stand.processes.kill(_agent(self.product.servers[-1].name))
        self._start(-1)

    def _ask_agent(self) -> bool:
        return self._answers(DIRECTOR, self._agent_address, AGENT_CHECK_PORT, b"")

    def _ask_master(self) -> bool:
        return self._answers("client", self._master_address, HTTP_PORT, b"GET /healthz HTTP/1.0\r\n\r\n")

    @property
    def _agent_address(self) -> str:
        return str(self.product.servers[0].address)

    @property
    def _master_address(self) -> str:
        return str(self.product.master_address)

    def _knock(self, undo: Undo, namespace: str, address: str, port: int) -> None:
        """Open connections that send nothing and stay open."""
        with network.entered(self.stand.topology.namespace(namespace)):
            clients = [undo.enter_context(socket.socket()) for _ in range(STRANGERS)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((address, port))

    def _answers(self, namespace: str, address: str, port: int, question: bytes) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with network.entered(self.stand.topology.namespace(namespace)):
                client = socket.socket()
            with client, contextlib.suppress(OSError):
                client.settimeout(1.0)
                client.connect((address, port))
                client.sendall(question)
                if client.recv(100):
                    return True
            time.sleep(0.2)
        return False

    # The disk.

    def _fill_disk(self) -> None:
        """Give one order that is stored on the disk, and another while the disk is full."""
        self._hold()
        self.disk.fill()
        answer = self.product.say("drain", destination=str(self.product.servers[0].address))
        self.stand.event("disk told", notes=answer["notes"])

    def _free_disk(self) -> None:
        """Make room: the second order must be stored by itself. A master killed then must continue with both."""
        kept, left = len(self._saved().orders), self._weight(0)
        self.disk.free()
        freed = time.monotonic()
        while len(self._saved().orders) < 2 and time.monotonic() < freed + PATIENCE_SECONDS:
            time.sleep(0.05)
        saved = time.monotonic() - freed
        self.stand.processes.kill("master")
        self.product.start_master()
        self.product.wait_until_reported()
        self.stand.event("disk found", kept=kept, weight=left, saved_seconds=saved, resumed=len(self._orders()))
        for index in (0, 1):
            self._lift(index)

    def _saved(self) -> state.State:
        """Raises LabError if the file is not whole."""
        try:
            return state.decode(self.product.state.read_bytes())
        except (OSError, state.StateError) as error:
            raise LabError(f"{self.product.state}: is not whole: {error}") from None

    def _weight(self, index: int) -> int:
        """The weight in the kernel."""
        destination = self.stand.destination(self.product.servers[index], 0).key
        found = next(d for d in self.stand.ipvs.destinations(self.stand.service) if d.destination.key == destination)
        return found.destination.weight


def _agent(server: str) -> str:
    return f"{server}-agent"
