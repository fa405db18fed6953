"""`feedback master check` of a scheduler that Linux does not have: an error of typing, or somebody's own module."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.ops import keys

SERVICE = '\n[[service]]\nvirtual = "tcp:10.0.0.{}:80"\nscheduler = "{}"\n'


@pytest.mark.parametrize(
    ("schedulers", "remarks"),
    [
        (("sed", "wlc"), []),
        (("sed", "wlcc"), ["service[1].scheduler: Linux has no wlcc: did you mean wlc?"]),
        (("mine", "rrr"), ["service[0].scheduler: Linux has no mine: it has sed, nq,", "service[1]", "mean rr?"]),
        (("w\\u001b[31m",), ["Linux has no w\\x1b[31m: it has sed"]),
    ],
)
def test_a_scheduler_that_linux_has_not_is_remarked(
    schedulers: tuple[str, ...], remarks: list[str], tmp_path: Path
) -> None:
    _, secret, _ = keys.create(tmp_path / "master")
    (tmp_path / "agents").mkdir()
    path, services = tmp_path / "master.toml", "".join(SERVICE.format(i, name) for i, name in enumerate(schedulers))
    path.write_text(f'key = "{secret}"\nenrolled = "{tmp_path}/agents"\n{services}')
    answer = CliRunner().invoke(main, ["master", "check", "--config", str(path)])
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert lines[0] == f"{path}: good: {len(schedulers)} services, 0 agents enrolled"
    assert all(line.startswith(f"{path}: service[") for line in lines[1:])
    assert ("Linux has no" in answer.output) == bool(remarks)
    assert all(remark in answer.output for remark in remarks)
