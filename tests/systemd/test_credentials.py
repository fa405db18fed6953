"""The drop-in that hands a key over as a credential: systemd takes it beside the unit, and the key is then found."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from feedback.config import MasterConfig, load
from feedback.ops import keys

ROOT = Path(__file__).parents[2]
DROP_IN = ROOT / "examples" / "credentials.conf"


def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    unit = tmp_path / "feedback-master.service"
    unit.write_text((ROOT / "systemd" / unit.name).read_text().replace("/usr/bin/feedback ", "/bin/true "))
    (tmp_path / f"{unit.name}.d").mkdir()
    for text, good in ((DROP_IN.read_text(), True), ("[Service]\nLoadCredentials=x:/y\n", False)):
        (tmp_path / f"{unit.name}.d" / DROP_IN.name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60
        )
        own = [line for line in done.stderr.splitlines() if "feedback" in line or DROP_IN.name in line]
        assert (own == []) is good, own


def test_the_key_that_it_hands_over_is_the_one_that_the_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = re.search(r'key = "(credential:[^"]+)"', DROP_IN.read_text())
    handed = re.search(r"^LoadCredential=([^:]+):(\S+)$", DROP_IN.read_text(), re.MULTILINE)
    assert named and handed
    assert Path(handed[2]) == MasterConfig().key
    (tmp_path / "master.toml").write_text(f'ownership = "weights"\nkey = "{named[1]}"\n')
    _, secret, public = keys.create(tmp_path / "made")
    (tmp_path / "credentials").mkdir()
    secret.rename(tmp_path / "credentials" / handed[1])
    # As the manager leaves it: an access list, which shows as permissions of the group.
    (tmp_path / "credentials" / handed[1]).chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert keys.load_secret(load(tmp_path / "master.toml", MasterConfig).key).public == public
