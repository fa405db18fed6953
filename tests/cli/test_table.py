"""`save` and `restore`: what is printed, what is done, and on a real kernel that plain ipvsadm agrees with both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import feedback.ipvs
from feedback.cli.main import main
from feedback.ipvs import FakeKernel
from feedback.ipvs.text import format_table, parse
from feedback.model import CHECK_MARKS
from tests.ipvs import conftest
from tests.ipvs.conftest import RealDirector

netns, real = conftest.netns, conftest.real  # fixtures

TABLE = """\
-A -f 7 -6 -s rr
-a -f 7 -6 -r [2001:db8::2]:0 -g -w 1
-A -t 10.0.0.100:80 -s sed
-a -t 10.0.0.100:80 -r 10.1.0.1:80 -g -w 100 -x 400 -y 350
-a -t 10.0.0.100:80 -r 10.1.0.2:80 -g -w 0
-A -t 10.0.0.100:443 -s mh -p 300 -M 255.255.255.0 -b mh-fallback,mh-port
-a -t 10.0.0.100:443 -r 10.1.0.1:443 -i -w 30 -x 7 --tun-type gue --tun-port 6080
-A -u 10.0.0.100:53 -s wrr -o
-a -u 10.0.0.100:53 -r 10.1.0.1:53 -m -w 3
"""


class Opened(FakeKernel):
    """What the commands open, with its table kept after they close it."""

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made = Opened()
    monkeypatch.setattr(feedback.ipvs, "Client", lambda netns=None: made)
    return made


def run(*words: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words], input=text)


def test_a_saved_table_is_restored_as_it_was(kernel: Opened, tmp_path: Path) -> None:
    assert run("restore", "-", text=TABLE).output == "4 services added, 5 destinations added\n"
    path = tmp_path / "rules"
    assert run("save", "-o", path).exit_code == 0
    assert sorted(path.read_text().splitlines()) == sorted(TABLE.splitlines())
    assert run("restore", path).output == "nothing to do\n"


def test_services_of_the_masters_own_checks_are_neither_saved_nor_restored_nor_removed(kernel: Opened) -> None:
    mark = CHECK_MARKS[0]
    checks = f"-A -f {mark} -s rr -o\n-a -f {mark} -r 10.1.0.1:0 -g -w 1\n"
    kernel.apply(parse(TABLE + checks))
    assert str(mark) not in run("save").output
    assert run("restore", "-", text=TABLE).output == "nothing to do\n"
    assert run("restore", "-", text=TABLE + checks.replace("10.1.0.1", "10.1.0.9")).output == "nothing to do\n"
    assert checks in format_table(kernel.snapshot())


def test_restore_makes_the_smallest_difference_and_dry_run_only_says_it(kernel: Opened) -> None:
    run("restore", "-", text=TABLE)
    changed = TABLE.replace("-w 100 -x 400", "-w 90 -x 400").replace("-A -u 10.0.0.100:53 -s wrr -o\n", "")
    changed = changed.replace("-a -u 10.0.0.100:53 -r 10.1.0.1:53 -m -w 3\n", "")
    expected = ["-e -t 10.0.0.100:80 -r 10.1.0.1:80 -g -w 90 -x 400 -y 350", "-D -u 10.0.0.100:53"]
    before = kernel.snapshot()
    assert run("restore", "-n", "-", text=changed).output.splitlines() == expected
    assert kernel.snapshot() == before
    assert run("restore", "--keep", "--dry-run", "-", text=changed).output.splitlines() == expected[:1]
    answer = json.loads(run("restore", "--json", "-", text=changed).output)
    assert answer == {"schema": 1, "dry_run": False, "edits": expected, "refused": []}
    assert run("restore", "--dry-run", "-", text=changed).output == ""


def test_the_json_of_save_has_a_schema_and_its_rules_are_read_again(kernel: Opened) -> None:
    run("restore", "-", text=TABLE)
    answer = json.loads(run("save", "--json").output)
    assert answer["schema"] == 1
    assert len(parse("\n".join(answer["rules"]))) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-C\n", "restored by difference, never by a flush"),
        ("-A -t 10.0.0.1:80 -s sed\nnonsense\n", "line 2"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1 -g\n", "comes before its service's"),
        ("-A -t 10.0.0.1:80\n-D -t 10.0.0.1:80\n", "only services"),
    ],
)
def test_a_file_that_is_no_table_is_refused_and_nothing_is_done(kernel: Opened, text: str, said: str) -> None:
    run("restore", "-", text=TABLE)
    before = kernel.snapshot()
    answer = run("restore", "-", text=text)
    assert (answer.exit_code, kernel.snapshot()) == (1, before)
    assert said in answer.output


def test_what_the_kernel_refuses_is_said_and_the_rest_is_done(kernel: Opened) -> None:
    answer = run("restore", "-", text="-A -t 10.0.0.1:80 -s nosuch\n-A -t 10.0.0.2:80 -s rr\n")
    assert answer.exit_code == 1
    assert "1 of 2 edits were refused" in answer.output
    assert len(kernel.snapshot().services) == 1


# --- on a real kernel, beside ipvsadm --------------------------------------------------------------------------------


@pytest.fixture
def second() -> Iterator[str]:
    name = "ipvs-second"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)  # before, no address is unicast
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def ipvsadm(netns: str, *words: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "ipvsadm", *words], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.lab
def test_plain_ipvsadm_reads_what_save_printed_thresholds_and_all(real: RealDirector, second: str) -> None:
    assert run("restore", "--netns", real.netns, "-", text=TABLE).exit_code == 0
    saved = run("save", "--netns", real.netns).output
    assert "-x 400 -y 350" in saved
    ipvsadm(second, "-R", text=saved)
    assert run("save", "--netns", second).output == saved
    assert "-x" not in ipvsadm(real.netns, "-Sn"), "ipvsadm saves thresholds by now: say so in the docs"


@pytest.mark.lab
def test_restore_reads_what_plain_ipvsadm_saved(real: RealDirector, second: str) -> None:
    bare = TABLE.replace(" -x 400 -y 350", "").replace(" -x 7", "")
    assert run("restore", "--netns", real.netns, "-", text=bare).exit_code == 0
    plain = ipvsadm(real.netns, "-Sn")
    answer = run("restore", "--netns", second, "-", text=plain)
    assert answer.exit_code == 0, answer.output
    assert ipvsadm(second, "-Sn") == plain


@pytest.mark.lab
def test_restore_keeps_established_connections_and_their_counts(real: RealDirector) -> None:
    run("restore", "--netns", real.netns, "-", text=TABLE)
    ends: list[Any] = [real.open() for _ in range(4)]
    before = real.kernel.snapshot()
    changed = TABLE.replace("-w 100 -x 400", "-w 90 -x 300").replace("-y 350", "-y 200")
    answer = run("restore", "--netns", real.netns, "-", text=changed)
    assert answer.output == "1 destinations changed\n"
    after = real.kernel.snapshot()
    assert _active(before) == _active(after) == 4
    assert "-w 90 -x 300 -y 200" in format_table(after)
    for client, server in ends:
        client.sendall(b"still here")
        assert server.recv(100) == b"still here"


def _active(snapshot: Any) -> int:
    return sum(d.active for s in snapshot.services for d in s.destinations)
