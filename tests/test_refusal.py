"""What an operator is told of a configuration that has a wrong key, type or word: one line that says what to write."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from feedback import refusals
from feedback.cli.main import main
from feedback.config import AgentConfig, ConfigError, MasterConfig, SyncConfig, parse
from feedback.config.strict import File

SERVICE = '[[service]]\nvirtual = "tcp:10.0.0.100:80"\n'
DESTINATION = '[[service.destination]]\naddress = "10.0.0.11"\n'
AGENT = 'name = "rs1"\naddresses = ["10.0.0.11"]\n[[master]]\nendpoint = "tcp://10.0.0.1:7433"\npublic_key = "x"\n'
LINK = '[[link]]\nlocal = "10.0.0.1:7434"\npeer = "10.0.0.2:7434"\n'


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (MasterConfig, SERVICE + 'schedular = "wlc"', "service[0]: unknown field `schedular`: did you mean scheduler?"),
        (MasterConfig, SERVICE + "[guard]", "unknown field `guard`: did you mean guards?"),
        (MasterConfig, DESTINATION.replace("service.", ""), "unknown field `destination`: it belongs in service"),
        (
            MasterConfig,
            "[http]\nport = 80",
            "http: unknown field `port`: expected one of listen, sync",
        ),
        (MasterConfig, "[check.web]\nfal = 2", "check[...]: unknown field `fal`: did you mean fall?"),
        (
            MasterConfig,
            SERVICE.replace("[[", "[").replace("]]", "]"),
            "service: there may be several: write [[service]]",
        ),
        (MasterConfig, 'listen = "tcp://0.0.0.0:1"', "listen: Expected `array`, got `str`: write it in brackets"),
        (MasterConfig, "guards = 3", "guards: is a table: write [guards], and its keys below"),
        (MasterConfig, SERVICE + "on_failure = true", "service[0].on_failure: Expected `str`, got `bool`"),
        (MasterConfig, "law = capacity", "not TOML: Invalid value (at line 1, column 7): a string needs quotes"),
        (AgentConfig, 'signals = "psutil"\n' + AGENT, "signals: 'psutil': expected one of auto, portable"),
        (AgentConfig, 'name = "rs1"', "required field `addresses` is missing"),
        (
            SyncConfig,
            'name = "d1"\npeer = "d2"\n' + LINK.replace("10.0.0.2", "10.0.0.1"),
            "link[0].peer: 10.0.0.1:7434 is this director's own end: name the other's",
        ),
        (
            MasterConfig,
            SERVICE + DESTINATION + '[service.check]\npath = "/health"',
            'service[0].check.path: is for type = "http" or "https"',
        ),
        (
            MasterConfig,
            SERVICE + DESTINATION + '[service.check]\ntype = "http"\nweight_json = "load.weight"',
            "service[0].check.weight_json: 'load.weight': expected a JSON pointer, as /load/weight",
        ),
    ],
)
def test_a_refusal_says_what_to_write_instead(kind: type[File], text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, kind, "file")
    assert str(caught.value) == f"file: {told}"


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant() -> None:
    answer = CliRunner().invoke(main, ["undrian", "10.0.0.11"])
    assert answer.exit_code == 2
    assert "No such command 'undrian': did you mean undrain?" in answer.output


@pytest.mark.parametrize("unit", ["tcp://", "\\u001b[31m", "a b "])
def test_a_long_value_is_cut_between_where_it_stands_and_what_was_expected(unit: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f'listen = ["{unit * 5000}"]\n', MasterConfig)
    text = str(refused.value)
    assert text.startswith("configuration: listen[0]: '")
    assert text.endswith(("expected tcp://ADDRESS:PORT", "port 0..65535"))
    assert len(text) <= refusals.SAID_MAX + 5 and text.isprintable()
