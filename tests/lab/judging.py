"""What a scenario's figures fall short of."""

from feedback.lab.bounds import judge
from feedback.lab.figures import Figures
from feedback.lab.scenario import Scenario


def missed(scenario: Scenario, figures: Figures) -> list[str]:
    """The figures whose bounds are missed, in the order of the bounds."""
    return [check.figure for check in judge(scenario.bounds, figures) if check.ok is False]
