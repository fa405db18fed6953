"""The lab's FTP and SIP as texts: what a session does, and what an answer says."""

from pathlib import Path

from feedback.lab.pair import ftp
from feedback.lab.pair.topology import VIP, pair
from feedback.lab.workload import sip


def test_one_of_the_addresses_shifts_what_is_rewritten_and_the_other_does_not() -> None:
    own, long = ftp.addresses(pair("lab7").servers[0])
    assert len(str(own)) < len(str(VIP)) == len(str(long))


def test_a_session_has_one_connection_and_begins_nothing_anew() -> None:
    text = ftp.client_script(ftp.Session(3, passive=False), Path("/x"))
    assert "set net:max-retries 1\n" in text and "set net:connection-limit 1\n" in text
    assert "set ftp:passive-mode off\n" in text and text.count("get ") == len(ftp.GETS)
    assert len([line for line in text.splitlines() if line.startswith("open")]) == 1


def test_only_what_came_over_whole_and_right_is_counted(tmp_path: Path) -> None:
    session = ftp.Session(1, passive=True)
    assert ftp.transferred(session, tmp_path) == 0
    for turn, (name, cut) in enumerate(zip(ftp.GETS, (0, 1, 0, 0), strict=True)):
        size = ftp.LARGE_BYTES if name == ftp.LARGE else ftp.SMALL_BYTES
        (tmp_path / f"ftp-1-{turn}-{name}").write_bytes(ftp.content(size)[: size - cut])
    (tmp_path / f"ftp-1-3-{ftp.SMALL}").write_bytes(b"x" * ftp.SMALL_BYTES)
    assert ftp.transferred(session, tmp_path) == 2


def test_an_answer_repeats_the_call_and_says_who_answers() -> None:
    asked = sip.request("call-7", "10.77.1.1", str(VIP), 2)
    answered = sip.answer(asked, "r2")
    assert b"\r\nCall-ID: call-7@10.77.1.1\r\n" in asked and b"\r\nCall-ID: call-7@10.77.1.1\r\n" in answered
    assert answered.startswith(b"SIP/2.0 200 OK\r\n") and b"Max-Forwards" not in answered
    assert sip.server_of(answered) == "r2" and sip.server_of(asked) == ""
