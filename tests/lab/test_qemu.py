"""Kernels of Debian in QEMU: found by name, unpacked, booted; the host keeps what is not theirs to write."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, choose, emulator
from feedback.lab.kernel.boot import UP, Bound, Watch
from feedback.lab.kernel.debian import archive as archive_module
from feedback.lab.kernel.debian import cached
from feedback.lab.kernel.debian.archive import Archive, Package, numbers
from feedback.lab.kernel.debian.cached import Unpacked, unpacked
from feedback.lab.kernel.qemu import Qemu, tried
from feedback.lab.kernel.ship import Shipment
from feedback.lab.outcomes import Reader
from feedback.lab.suite import REPORTS

OLD = """Package: linux-image-6.1.0-57-amd64
Version: 6.1.192-3
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: Linux 6.1 for 64-bit PCs (signed)"""
SPLIT = """Package: linux-image-7.3.4+deb13-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | initramfs-tools, linux-base-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), \
linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1)"""


def test_a_package_names_what_makes_its_kernel() -> None:
    old = archive_module._package(OLD)
    assert (old.release, old.version, old.parts) == ("6.1.0-57-amd64", "6.1.192-3", ("linux-image-6.1.0-57-amd64",))
    new = archive_module._package(SPLIT.replace("\\\n", ""))
    assert [part.partition("-7")[0] for part in new.parts] == ["linux-image", "linux-binary", "linux-modules"]
    assert old.upstream == (6, 1, 192) < new.upstream == (7, 3, 4)


@pytest.mark.parametrize(
    ("version", "found"), [("6.1.192-3", (6, 1, 192)), ("7.3.4-1~bpo13+1", (7, 3, 4)), ("7", (7,))]
)
def test_a_version_is_compared_by_its_numbers(version: str, found: tuple[int, ...]) -> None:
    assert numbers(version) == found


def packages(*versions: str) -> list[Package]:
    return [Package(f"linux-image-{version}-amd64", f"{version}-1", ()) for version in versions]


@pytest.mark.parametrize(
    ("name", "found"),
    [("6.1", "6.1.192"), ("6.1.187", "6.1.187"), ("newest", "7.3.4"), ("7", "7.3.4"), ("trixie", "6.12.9")],
)
def test_a_name_is_the_newest_that_it_fits(
    name: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    every = packages("6.1.187", "6.1.192", "6.12.9", "6.18.5", "7.3.4")
    monkeypatch.setattr(Archive, "kernels", lambda self, suite="": packages("6.12.9") if suite else every)
    assert cached._chosen(Archive(tmp_path), name).version == f"{found}-1"


def test_a_kernel_that_is_nowhere_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Archive, "kernels", lambda self, suite="": packages("6.1.187", "6.12.9"))
    with pytest.raises(LabError, match=r"no kernel 5\.10; it has 6\.1\.187, 6\.12\.9"):
        cached._chosen(Archive(tmp_path), "5.10")


def test_a_kernel_in_the_cache_needs_no_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = tmp_path / "lvs-feedback" / "kernels"
    (home / "6.1.0-57-amd64").mkdir(parents=True)
    cached._remember(home / "names" / "6.1", home / "6.1.0-57-amd64")
    monkeypatch.setattr(Archive, "kernels", lambda self, suite="": pytest.fail("the archive was asked"))
    assert unpacked("6.1") == Unpacked(home / "6.1.0-57-amd64", "6.1.0-57-amd64")
    # A name from long ago is asked for again, and stands where nobody answers.
    os.utime(home / "names" / "6.1", (0, 0), follow_symlinks=False)
    monkeypatch.setattr(Archive, "kernels", unreachable)
    assert unpacked("6.1").release == "6.1.0-57-amd64"
    with pytest.raises(LabError, match="no network"):
        unpacked("7.3")


@pytest.mark.parametrize("name", ["../../etc", "6.1/x", "", "Trixie", "-o"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="no kernel's name"):
        unpacked(name)


def unreachable(self: Archive, suite: str = "") -> list[Package]:
    raise LabError("no network")


@pytest.mark.parametrize(
    ("name", "processors", "said"),
    [("vmware", None, "no kernel 'vmware'"), ("uml", 2, "only a kernel in QEMU"), (None, 2, "only a kernel in QEMU")],
)
def test_what_no_kernel_can_do_is_refused(name: str | None, processors: int | None, said: str) -> None:
    with pytest.raises(LabError, match=said):
        choose(name, processors=processors)


def test_without_the_emulator_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(LabError, match="apt install qemu-system-x86"):
        choose("qemu:6.1")


def test_what_grows_is_carried_over_and_what_is_replaced_anew(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "logs").mkdir(parents=True)
    target.mkdir()
    shipment = Shipment(source, target)
    with (source / "logs" / "events").open("a") as events:
        for word in ("one ", "two ", "three"):
            events.write(word)
            events.flush()
            shipment.carry()
            assert (target / "logs" / "events").read_text() == (source / "logs" / "events").read_text()
    inode = (target / "logs" / "events").stat().st_ino
    (source / "logs" / "other").write_text("a page")
    (source / "logs" / "other").replace(source / "logs" / "events")
    shipment.carry()
    assert (target / "logs" / "events").read_text() == "a page"
    assert (target / "logs" / "events").stat().st_ino == inode
    (source / "logs" / "events").write_text("cut")
    shipment.carry()
    assert (target / "logs" / "events").read_text() == "cut"


IDLE, BUSY = "import time; time.sleep(60)", "while True: pass"


@pytest.mark.parametrize(
    ("program", "bound", "said"),
    [(IDLE, Bound(60, 0.4), "none in the last"), (BUSY, Bound(0.4, 60), "a boot may use"), (BUSY, Bound(60, 60), "")],
)
def test_a_guest_that_does_not_come_up_is_told_from_one_that_is_slow(
    program: str, bound: Bound, said: str, tmp_path: Path
) -> None:
    console = tmp_path / "console.log"
    console.write_text("Booting paravirtualised kernel\n")
    # As a supervisor and its guest: what counts is what the child uses.
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], start_new_session=True) as process:
        try:
            watch = Watch(bound, process.pid, console)
            deadline = time.monotonic() + (30 if said else 1)
            while (trouble := watch.trouble()) is None and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    if said:
        assert said in str(trouble)
        assert "Booting paravirtualised kernel" in str(trouble)
    else:
        assert trouble is None


def test_a_guest_that_is_up_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_bytes(f"[    1.8] {UP}\n".encode())
    assert Watch(Bound(0, 0), os.getpid(), console).trouble() is None


@pytest.mark.parametrize(
    ("accelerator", "processors", "known", "program"),
    [
        ("tcg", 1, {"host": (7, 2)}, "host"),
        ("kvm", 2, {"host": (7, 2)}, "host"),
        ("tcg", 2, {"host": (8, 1)}, "host"),
        ("tcg", 2, {"host": (7, 2), "/later": (10, 0)}, "/later"),
    ],
)
def test_an_emulator_that_starves_a_processor_is_replaced(
    accelerator: str,
    processors: int,
    known: dict[str, tuple[int, int]],
    program: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulator, "PROGRAM", "host")
    monkeypatch.setattr(emulator, "version", known.__getitem__)
    monkeypatch.setattr(emulator, "backported_emulator", lambda: Path("/later"))
    assert emulator.program(accelerator, processors) == program


def test_where_there_is_no_later_emulator_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise LabError("the Debian mirror has no qemu-system-x86 of the suite 'bookworm-backports'")

    monkeypatch.setattr(emulator, "version", lambda program: (7, 2))
    monkeypatch.setattr(emulator, "backported_emulator", none)
    with pytest.raises(LabError, match=r"QEMU 7\.2 is too old .* 8\.1 is needed, or KVM.*bookworm-backports"):
        emulator.program("tcg", 2)
    assert emulator.program("tcg", 1) == emulator.PROGRAM


def test_of_a_package_the_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "root" / "DEBIAN").mkdir(parents=True)
    (tmp_path / "root" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "root" / "DEBIAN" / "control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n"
    )
    (tmp_path / "root" / "usr" / "bin" / "tool").write_text("text")
    (tmp_path / "root" / "usr" / "bin" / "tool").chmod(0o755)
    (tmp_path / "root" / "usr" / "link").symlink_to("/etc/passwd")
    subprocess.run(
        ["dpkg-deb", "--build", str(tmp_path / "root"), str(tmp_path / "p.deb")], check=True, stdout=subprocess.DEVNULL
    )
    assert list(cached.files_of(tmp_path / "p.deb")) == [("usr/bin/tool", b"text", True)]


# --- booted ----------------------------------------------------------------------------------------------------------

CORE = "real and (threshold or upper or weight or service)"
NEW = "trixie-backports"  # the lists of one suite are read in a second, those of all, for "newest", in a minute
GUEST_SECONDS = 600.0  # emulated, and beside other work
RULES = """
-A -t 10.9.0.100:80 -s wlc -p 300 -M 255.255.255.0
-a -t 10.9.0.100:80 -r 10.9.0.1:80 -g -w 10 -x 100 -y 80
-a -t 10.9.0.100:80 -r 10.9.0.2:80 -g -w 65535
-e -t 10.9.0.100:80 -r 10.9.0.1:80 -g -w 0
-A -u [fd09::100]:53 -s mh -b mh-port
-a -u [fd09::100]:53 -r [fd09::1]:53 -i -w 7
-A -f 7 -s sed
-a -f 7 -r 10.9.0.1:0 -m -w 3
-a -f 7 -r 10.9.0.2:0 -m -w 4
-d -f 7 -r 10.9.0.1:0
"""
SCRIPT = """
import os, pathlib
from feedback.ipvs import Client, FakeKernel
from feedback.ipvs.text import format_table, parse
output = pathlib.Path({output!r})
(output / "told").write_text(" ".join((os.uname().release, str(os.cpu_count()))))
with Client() as real:
    for kernel in (real, fake := FakeKernel()):
        assert not kernel.apply(parse({rules!r}))
    for name, kernel in (("real", real), ("fake", fake)):
        (output / name).write_text(format_table(kernel.snapshot()))
pathlib.Path({trace!r}).touch()
try:
    pathlib.Path({inside!r}).touch()
except OSError as error:
    (output / "refused").write_text(str(error))
"""


@pytest.mark.parametrize(
    ("name", "processors"),
    # 6.1 waits for its second processor in a way that hangs where the emulator is unfair.
    [(NEW, 1), pytest.param("6.1", 2, marks=pytest.mark.kernels)],
)
@pytest.mark.lab(on="host")
def test_a_debian_kernel_keeps_a_table_and_writes_into_its_output_directory_only(
    name: str, processors: int, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    trace, inside = Path(f"/tmp/{tmp_path.name}-trace"), Path(__file__).parent / "trace"
    script = SCRIPT.format(output=str(output), trace=str(trace), inside=str(inside), rules=RULES)
    (output / "job.py").write_text(script)
    kernel = Qemu(name, processors=processors)
    with Guest(kernel, Job(task="script", output=str(output), arguments=(str(output / "job.py"),))) as guest:
        guest.wait(GUEST_SECONDS)
    assert (output / "told").read_text() == f"{unpacked(name).release} {processors}"
    table = (output / "real").read_text()
    assert table == (output / "fake").read_text()
    assert "-r 10.9.0.1:80 -g -w 0" in table
    assert "Read-only" in (output / "refused").read_text()
    assert not trace.exists()
    assert not inside.exists()


@pytest.mark.lab(on="host")
@pytest.mark.long
def test_the_core_of_the_contract_holds_on_the_newest_kernel(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The rest of it is `make test-kernels`."""
    directory, arguments = str(pytestconfig.rootpath), ("tests/ipvs/test_contract.py", "-k", CORE)
    job = Job(task="pytest", output=str(tmp_path / "output"), directory=directory, arguments=arguments)
    with Guest(Qemu("newest"), job) as guest:
        guest.wait(GUEST_SECONDS)
    reports = Reader(tmp_path / "output" / REPORTS, pytestconfig).new()
    outcomes = Counter(report.outcome for report in reports if report.when == "call")
    assert outcomes == {"passed": outcomes.total()}
    assert outcomes.total() >= 10


@pytest.mark.lab(on="host")
def test_a_machine_that_does_not_come_up_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = unpacked(NEW)
    broken = Unpacked(tmp_path, kernel.release)
    (tmp_path / "lib").symlink_to(kernel.directory / "lib")
    (tmp_path / "vmlinuz").write_bytes(b"\0" * 4096)
    assert "ended before its first process" in str(tried(broken, "tcg"))
    monkeypatch.setattr("feedback.lab.kernel.qemu.EMULATED_BOOT_SECONDS", 2.5)
    slow = str(tried(kernel, "tcg"))
    assert "has not reached its first process" in slow
    assert re.search(r"a boot may use \d+ s", slow)  # 2.5, and more on a slow or busy host
    assert re.search(r"\[ +\d+\.\d+\] ", slow)  # what the kernel has said
