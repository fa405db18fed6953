"""The packages as they are built: what is in them, and that they install, run and go, in roots that vanish.

Building asks PyPI for the libraries, and takes a minute or two in all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packages import agent, site

ROOT = agent.ROOT
SCRATCH = ROOT / "packages" / "scratch"

pytestmark = [
    pytest.mark.packages,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts overlays"),
]


def run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interpreter(version: str) -> Path | None:
    """A Python of that version that starts: on the path, or of pyenv's."""
    found = shutil.which(f"python{version}")
    places = [*([Path(found)] if found else []), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")]
    works = (p for p in places if subprocess.run([p, "-c", ""], capture_output=True, check=False).returncode == 0)
    return next(works, None)


OLD = interpreter("3.9")
needs_old = pytest.mark.skipif(OLD is None, reason="no Python 3.9 here")

# What a real server's administrator types, from the key to a running agent.
FIRST_STEPS = """
set -eu
feedback --version
feedback keys new /tmp/agent 2>&1
cat > agent.toml <<EOF
name = "rs1"
addresses = ["10.0.0.11"]
key = "/tmp/agent.key_secret"
[[master]]
endpoint = "tcp://127.0.0.1:9"
public_key = "$(sed -n 's/ *public-key = "\\(.*\\)"/\\1/p' agent.key)"
EOF
feedback agent check --config agent.toml
timeout --preserve-status -s TERM 3 feedback agent --config agent.toml 2>&1
feedback show 2>&1 && exit 1
true
"""
SEEN = ("feedback, version 0.1.0", "agent.toml: good: rs1: ", "event=agent-started", "event=agent-stopped")


# --- RPM -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    built = once(tmp_path_factory, "rpm", "lvs-feedback-*.rpm")
    return {run("rpm", "-qp", "--qf", "%{NAME}", path): path for path in built}


def once(factory: pytest.TempPathFactory, target: str, pattern: str) -> list[Path]:
    """What `make TARGET` leaves in dist/, made by the first of the processes that run tests, and kept for all."""
    kept = factory.getbasetemp().parent / f"built-{target}-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    with (kept.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            run("make", target)
            kept.mkdir()
            for path in (ROOT / "dist").glob(pattern):
                shutil.copy2(path, kept)
    return sorted(kept.iterdir())


def gone(*paths: str) -> str:
    """Shell: fails where one of them is left."""
    return "".join(f"[ ! -e {path} ] || {{ echo {path} is left; exit 1; }}\n" for path in paths)


def contents(rpm: Path) -> list[str]:
    return run("rpm", "-qlp", rpm).splitlines()


def test_the_spec_makes_both_packages_of_this_version(rpms: dict[str, Path]) -> None:
    assert set(rpms) == {"lvs-feedback", "lvs-feedback-agent"}
    from feedback import __version__

    assert {run("rpm", "-qp", "--qf", "%{VERSION}", path) for path in rpms.values()} == {__version__}


def test_the_agents_rpm_has_its_modules_its_libraries_and_its_unit(rpms: dict[str, Path]) -> None:
    listed = contents(rpms["lvs-feedback-agent"])
    home = "/usr/lib/lvs-feedback-agent"
    ours = {p for p in listed if p.startswith(f"{home}/feedback/") and p.endswith(".py")}
    assert ours == {f"{home}/{path.relative_to(ROOT)}" for path in agent.modules().values()}
    tops = {p.removeprefix(home + "/").partition("/")[0] for p in listed if p.startswith(home + "/")}
    libraries = {t for t in tops if not t.endswith((".dist-info", ".libs"))}
    assert libraries == {*agent.LIBRARIES.values(), "tomli", "feedback", "bin"}
    assert "/usr/lib/systemd/system/feedback-agent.service" in listed
    assert "/usr/lib/sysusers.d/feedback.conf" in listed
    assert [p for p in listed if p.endswith((".pyc", "feedback-master.service", "feedback-sync.service"))] == []
    assert "/usr/bin/python3.9" in run("rpm", "-qRp", rpms["lvs-feedback-agent"]).split()


def test_the_directors_rpm_has_every_module_unit_and_page(rpms: dict[str, Path]) -> None:
    listed = set(contents(rpms["lvs-feedback"]))
    home = "/usr/lib/lvs-feedback"
    modules = {f"{home}/{p.relative_to(ROOT)}" for p in (ROOT / "feedback").rglob("*.py")}
    assert modules <= listed
    assert {f"/usr/lib/systemd/system/{p.name}" for p in (ROOT / "systemd").glob("*.service")} <= listed
    assert {f"/usr/share/man/man8/{p.name}" for p in (ROOT / "man").glob("*.8")} <= {
        p.removesuffix(".gz") for p in listed
    }
    assert any(p.startswith(f"{home}/cryptography/") for p in listed)


def test_the_agents_rpm_is_at_most_a_third_of_the_whole_one(rpms: dict[str, Path]) -> None:
    size = {name: int(run("rpm", "-qp", "--qf", "%{SIZE}", path)) for name, path in rpms.items()}
    assert size["lvs-feedback-agent"] <= size["lvs-feedback"] / 3


@needs_old
def test_the_agents_rpm_installs_runs_on_python_3_9_and_goes(rpms: dict[str, Path], tmp_path: Path) -> None:
    steps = tmp_path / "steps.sh"
    steps.write_text(
        f"set -eu\nln -s {OLD} /usr/bin/python3.9\n"
        f"rpm -i --nodeps {rpms['lvs-feedback-agent'].name}\n"
        "getent passwd feedback\ntest -d /etc/feedback/agents\n"
        "test -e /usr/lib/lvs-feedback-agent/feedback/__pycache__\n"
        f"{FIRST_STEPS}\nrpm -e --nodeps lvs-feedback-agent\n"
        + gone("/usr/lib/lvs-feedback-agent", "/usr/bin/feedback", "/usr/lib/systemd/system/feedback-agent.service")
    )
    said = run(SCRATCH, "/", rpms["lvs-feedback-agent"], steps, "--", "sh", "steps.sh")
    assert all(line in said for line in SEEN), said


def test_the_directors_rpm_installs_checks_the_example_and_goes(rpms: dict[str, Path], tmp_path: Path) -> None:
    python = interpreter("3.11")
    assert python is not None
    steps = tmp_path / "steps.sh"
    steps.write_text(
        f"set -eu\n[ -e /usr/bin/python3.11 ] || ln -s {python} /usr/bin/python3.11\n"
        f"rpm -i --nodeps {rpms['lvs-feedback'].name}\n"
        "feedback keys new /etc/feedback/master 2>&1\n"
        "cp /usr/share/doc/lvs-feedback/examples/master.toml /etc/feedback/\n"
        "feedback master check\nfeedback simulate --help\n"
        "rpm -e --nodeps lvs-feedback\n" + gone("/usr/lib/lvs-feedback", "/usr/bin/feedback")
    )
    said = run(SCRATCH, "/", rpms["lvs-feedback"], steps, "--", "sh", "steps.sh")
    assert "/etc/feedback/master.toml: good" in said


# --- Debian --------------------------------------------------------------------------------------------------------


def test_the_debian_packages_are_built_tried_out_and_the_agents_is_at_most_a_third() -> None:
    """`make deb` installs, uses and removes both, and fails where anything does not hold."""
    said = run("make", "deb")
    assert said.count("holds: it is purged") == 2
    version = run("dpkg-parsechangelog", "-S", "Version").strip()
    machine = run("dpkg", "--print-architecture").strip()
    size = {
        name: int(run("dpkg-deb", "-f", f"dist/{name}_{version}_{machine}.deb", "Installed-Size"))
        for name in ("lvs-feedback", "lvs-feedback-agent")
    }
    assert size["lvs-feedback-agent"] <= size["lvs-feedback"] / 3


# --- one file ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (made,) = once(tmp_path_factory, "pyz", "*.pyz")
    return made


def test_the_file_says_what_the_hosts_python_lacks(one_file: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare")
    python = tmp_path / "bare" / "bin" / "python3"
    done = subprocess.run([python, one_file, "agent"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("feedback-agent.pyz needs 'pyzmq>=")
    assert "'msgspec>=" in done.stderr
    assert f"{python} -m pip install" in done.stderr


@needs_old
def test_the_file_runs_on_python_3_9_with_what_is_compiled_from_the_host(one_file: Path, tmp_path: Path) -> None:
    compiled = [text for text in agent.requirements("3.9") if not text.startswith(("click", "tomli"))]
    site.install(compiled, tmp_path / "host", site.foreign("3.9"))
    launcher = tmp_path / "feedback"
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH=/tmp/host exec {OLD} /tmp/{one_file.name} "$@"\n')
    launcher.chmod(0o755)
    archive = shutil.make_archive(str(tmp_path / "host"), "tar", tmp_path, "host")
    steps = tmp_path / "steps.sh"
    steps.write_text(f"set -eu\ntar -xf host.tar\ninstall feedback /usr/bin/feedback\n{FIRST_STEPS}")
    said = run(SCRATCH, "/", one_file, launcher, archive, steps, "--", "sh", "steps.sh")
    assert all(line in said for line in SEEN), said
