"""A Debian kernel in QEMU: any release that Debian's archive has, any number of processors.

Owns the emulator's command line, and the choice between the processor's own virtualisation (KVM) and emulation (TCG).
Must not know what the job does. The guest's root is the host's file system by 9p, which QEMU itself keeps read-only;
it writes to its output directory only, and there by `feedback.lab.kernel.ship`.

Emulated, the guest's time counts instructions: a processor of 1000 MIPS, whatever the host does meanwhile, and idle
time passes at once. So its figures do not depend on the host's load; only how long a run takes does. Source: QEMU's
docs/devel/tcg-icount.rst.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel import emulator, preload, speed
from feedback.lab.kernel.boot import Bound, Watch, the_end_of
from feedback.lab.kernel.debian import Unpacked, unpacked
from feedback.lab.kernel.environment import environment
from feedback.lab.kernel.initramfs import initramfs
from feedback.lab.kernel.launch import Launch
from feedback.lab.kernel.start import start, stop

INIT = Path(__file__).with_name("init.sh")
MEMORY_MB = 1024  # for each processor
# A nanosecond an instruction: the quickest that counting can be: some 1,000 MIPS.
INSTRUCTION_SHIFT = 0
# Without AVX, which is slow to emulate; with a clock that the kernel trusts and a source of random numbers.
EMULATED_CPU = "Nehalem,+rdrand"
# Vulnerabilities of real processors are no matter here, and their remedies make each system call flush the TLB.
COMMAND_LINE = (
    "console=ttyS0 earlyprintk=serial,ttyS0 edd=off panic=-1 "
    "mitigations=off tsc=reliable no_timer_check random.trust_cpu=on"
)
# Processor time of a boot up to the first process. Emulated, on the reference core (speed.py): 7 s of 7.3.4, 9 s of 6.1
# and up to 17 s with two processors. With KVM less than 1 s. The bounds are about four times that, and more with KVM.
EMULATED_BOOT_SECONDS, KVM_BOOT_SECONDS = 60.0, 10.0
# Wall seconds that a second of a busy emulated guest takes on an idle host: 1 to 2, and as much again for its boot.
EMULATION_PATIENCE = 4.0
POLL_SECONDS = 0.05


class Qemu:
    kind = "qemu"
    own_run_namespace = True  # all that a run makes dies with the guest
    own_time = False

    def __init__(self, kernel: str = "newest", *, processors: int = 1, accelerator: str | None = None) -> None:
        """`kernel` as `feedback.lab.kernel.debian.unpacked` takes it; without `accelerator`, KVM where it works."""
        self.kernel = kernel
        self.processors = processors
        self.accelerator = accelerator

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.kernel}"

    @property
    def patience(self) -> float:
        """Raises LabError."""
        return EMULATION_PATIENCE if self._accelerator(unpacked(self.kernel)) == "tcg" else 1.0

    def unavailable(self) -> str | None:
        """Why this kernel cannot run here, or None."""
        return emulator.unavailable()

    def launch(self, job: Path, output: Path, scratch: Path) -> Launch:
        """Raises LabError."""
        if reason := self.unavailable():
            raise LabError(reason)
        kernel = unpacked(self.kernel)
        accelerator = self._accelerator(kernel)
        if accelerator == "kvm" and not kvm_works(kernel):
            raise LabError("KVM does not boot a guest on this machine: leave --accel away, or --accel tcg")
        (scratch / "environment").write_text(
            environment(job, output, scratch, modules=kernel.modules, shipped=True), encoding="utf-8"
        )
        shutil.copy(INIT, scratch / "init.sh")
        (scratch / "initramfs").write_bytes(initramfs(kernel))
        told = f"LAB_INIT={scratch}/init.sh LAB_ENVIRONMENT={scratch}/environment"
        command = [
            *machine(kernel, scratch / "initramfs", told, accelerator, self.processors),
            *_share("host", Path("/"), "readonly=on,multidevs=remap"),
            *_share("output", output.absolute(), "multidevs=remap"),
        ]
        own_time = accelerator == "tcg"
        facts: dict[str, float | bool | str] = {
            "own_time": own_time,
            "kernel_package": kernel.version,
            "accelerator": accelerator,
            "processors": self.processors,
        }
        return Launch(command, {}, own_time, facts, bound(accelerator))

    def _accelerator(self, kernel: Unpacked) -> str:
        return self.accelerator or ("kvm" if kvm_works(kernel) else "tcg")


def machine(kernel: Unpacked, initial: Path, told: str, accelerator: str, processors: int = 1) -> list[str]:
    """The command of a guest without any share; `told` goes to its command line. Raises LabError."""
    counted = ["-icount", f"shift={INSTRUCTION_SHIFT},sleep=off,align=off"] if accelerator == "tcg" else []
    return [
        *(
            emulator.program(accelerator, processors),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-machine", "pc", "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else EMULATED_CPU),
        *("-smp", str(processors), "-m", str(MEMORY_MB * processors), *counted),
        *("-serial", "stdio", "-kernel", str(kernel.vmlinuz), "-initrd", str(initial)),
        *("-append", f"{COMMAND_LINE} {told}"),
    ]


def _share(tag: str, path: Path, options: str) -> list[str]:
    place = str(path).replace(",", ",,")
    return [
        *("-fsdev", f"local,id={tag},path={place},security_model=none,{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def bound(accelerator: str) -> Bound:
    return Bound(KVM_BOOT_SECONDS if accelerator == "kvm" else EMULATED_BOOT_SECONDS / speed.measure())


def kvm_works(kernel: Unpacked) -> bool:
    """Whether a guest really comes up with KVM: that /dev/kvm can be opened says little. Tried once a boot of the host.
    Raises LabError."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    known = preload.cache() / "kvm" / f"{boot}-{kernel.release}"
    if not known.exists():
        trouble = tried(kernel, "kvm")
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(f"does not: {trouble}\n" if trouble else "works\n", encoding="utf-8")
    return known.read_text(encoding="utf-8") == "works\n"


def tried(kernel: Unpacked, accelerator: str, processors: int = 1) -> str | None:
    """Boots it up to its first process. None if it gets there, else what was seen. Raises LabError."""
    scratch = Path(tempfile.mkdtemp(prefix="feedback-lab-"))
    console = scratch / "console.log"
    try:
        (scratch / "initramfs").write_bytes(initramfs(kernel))
        command = machine(kernel, scratch / "initramfs", "LAB_PROBE=yes", accelerator, processors)
        process = start(command, console, scratch / "none")
        try:
            watch = Watch(bound(accelerator), process.pid, console)
            while (trouble := watch.trouble()) is None and not watch.up and process.poll() is None:
                time.sleep(POLL_SECONDS)
            # What it said last may have come after the last look.
            trouble = trouble or watch.trouble()
        finally:
            stop(process)
        if trouble is None and not watch.up:
            return f"the guest ended before its first process{the_end_of(console)}"
        return trouble
    finally:
        shutil.rmtree(scratch)
