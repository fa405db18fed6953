"""The contents of Debian's archive, through apt: the mirrors of this machine, lists in a directory of ours.

Must not know of the cache's unpacked kernels. The mirrors' addresses come from this machine's own apt configuration;
this project names none. Source: apt-get(8), `indextargets` and `download`; apt.conf(5), `Dir`.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from feedback.lab.error import LabError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Newer suites last. A suite that the mirror has not is left out.
RELEASES = ("bookworm", "trixie", "forky", "sid")
LISTS_FRESH_SECONDS = 86400.0
APT_SECONDS = 600.0
# The plain flavour: the cloud flavour has no 9p.
NAMED = r"^linux-image-[0-9][^-]*(-[0-9]+)?-amd64$"


@dataclass(frozen=True, slots=True)
class Package:
    """`version` is Debian's; `parts` the packages, itself included, whose files make the kernel."""

    name: str
    version: str
    parts: tuple[str, ...]

    @property
    def release(self) -> str:
        """The release as `uname -r` shows it."""
        return self.name.removeprefix("linux-image-")

    @property
    def upstream(self) -> tuple[int, ...]:
        return numbers(self.version)


class Archive:
    """Debian's packages as this machine's mirrors have them, of all suites or of `only` one, whose lists are a
    hundredth of the whole. Each method raises LabError."""

    def __init__(self, directory: Path, only: str = "") -> None:
        self.directory, self.only = directory, only

    def kernels(self, suite: str = "") -> list[Package]:
        """The kernels of all suites, or of one, oldest first."""
        self._update()
        names = self._cache("search", "--names-only", NAMED).splitlines()
        names = [line.partition(" ")[0] for line in names]
        found = [_package(text) for text in self._cache("show", *names).split("\n\n") if text.strip()] if names else []
        if suite:
            wanted = self._names_of(suite)
            found = [package for package in found if package.name in wanted]
        return sorted(found, key=lambda package: (package.upstream, package.release))

    def download(self, package: Package, directory: Path) -> list[Path]:
        """Download into `directory`; apt checks signatures and checksums."""
        wanted = [f"{part}={package.version}" for part in package.parts]
        self._run("apt-get", "-qq", "download", *wanted, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def package(self, name: str, suite: str, *others: str) -> Package:
        """The newest of this name that the suite has, with others that have its version."""
        self._update()
        version = self._versions(name, suite)[0]
        return Package(name, version, (name, *others))

    def _names_of(self, suite: str) -> set[str]:
        """The kernel that the suite's metapackage depends on: its current one."""
        versions = self._versions("linux-image-amd64", suite)
        shown = self._cache("show", *(f"linux-image-amd64={version}" for version in versions))
        return set(re.findall(r"\blinux-image-[0-9]\S*-amd64\b", shown))

    def _versions(self, name: str, suite: str) -> list[str]:
        """Newest first, at least one."""
        lines = [line.split("|") for line in self._cache("madison", name).splitlines()]
        if versions := [line[1].strip() for line in lines if f" {suite}/main" in line[2]]:
            return versions
        raise LabError(f"the Debian mirror has no {name} of the suite {suite!r}")

    def _update(self) -> None:
        lists = self.directory / "lists"
        stamp = self.directory / "updated"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_SECONDS:
            return
        for directory in (lists / "partial", self.directory / "archives" / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "sources.list").write_text(_sources(self.only), encoding="utf-8")
        # Fails as a whole where a mirror lacks one suite; what matters is whether the kernels can be listed.
        self._run("apt-get", "-qq", "update", check=False)
        if not any(lists.glob("*Packages*")):
            raise LabError("apt-get update has brought no list of Debian's packages: is there a network?")
        stamp.touch()

    def _cache(self, *arguments: str) -> str:
        return self._run("apt-cache", *arguments)

    def _run(self, program: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> str:
        own = {
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self.directory / "lists",
            "Dir::Cache": self.directory,
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "amd64",
            "APT::Sandbox::User": "",  # its own user could not write to our directories
            "Debug::NoLocking": "1",
        }
        options = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]
        try:
            ended = subprocess.run(
                [program, *options, *arguments],
                cwd=cwd,
                capture_output=True,
                text=True,
                timeout=APT_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise LabError(f"{program}: not on this machine: kernels of Debian need Debian's apt") from None
        except subprocess.TimeoutExpired:
            raise LabError(f"{program} {arguments[0]} has not ended in {APT_SECONDS:.0f} s") from None
        if check and ended.returncode:
            raise LabError(f"{program} {arguments[0]} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
        return ended.stdout


def numbers(version: str) -> tuple[int, ...]:
    """`6.1.192-3` is (6, 1, 192)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.match(r"[\d.]*", version)[0]))  # type: ignore[index]


def _package(text: str) -> Package:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Z]\S*: ", line))
    # From 7.x on the image package is empty, and depends on the files.
    parts = re.findall(r"\blinux-(?:binary|modules)-[0-9]\S*", fields.get("Depends", ""))
    return Package(fields["Package"], fields["Version"], (fields["Package"], *dict.fromkeys(parts)))


def _sources(only: str = "") -> str:
    """Every suite of RELEASES, or this one, at the mirrors from which this machine has its own Debian."""
    if not KEYRING.exists():
        raise LabError(f"there is no {KEYRING}: apt install debian-archive-keyring")
    lines = []
    for uri, suite in sorted(_mirrors()):
        security = suite.endswith("-security")
        for release in RELEASES:
            parts = ["-security"] if security else ["", "-backports"]
            if release == "sid":
                parts = [] if security else [""]
            suites = [release + part for part in parts if not only or release + part == only]
            lines += [f"deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main" for suite in suites]
    if not lines and only:
        raise LabError(f"{only!r} is no suite of Debian's: {', '.join(RELEASES)}, or one of them with -backports")
    if not lines:
        raise LabError("this machine's apt has no source of Debian's own: add Debian's to /etc/apt/sources.list")
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _mirrors() -> set[tuple[str, str]]:
    """(address, suite) of one mirror of the main archive and one of the security archive."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        raise LabError("apt-get does not answer: kernels of Debian need Debian's apt") from None
    found: dict[bool, tuple[str, str]] = {}
    for line in told.splitlines():
        uri, suite, component = line.split(" ")
        if component == "main" and suite.partition("-")[0] in (*RELEASES, "stable", "testing", "unstable"):
            found.setdefault(suite.endswith("-security"), (uri, suite))
    return set(found.values())
