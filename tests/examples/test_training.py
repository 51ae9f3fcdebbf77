"""Each example is learned, and its bar is out of reach of simple methods and of mistaken pipelines."""

import pytest

from tests.examples.every import NAMES, answers, example


@pytest.mark.parametrize("name", NAMES)
def test_example_is_learned_and_its_baseline_is_not_enough(name: str) -> None:
    made = example(name)
    assert made.score(answers(name, made.questions)) >= made.bar
    assert made.baseline <= made.bar - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_mistaken_pipeline_stays_below_the_bar(name: str) -> None:
    made = example(name)
    for mistake, change in made.wrong.items():
        score = made.score(answers(name, [change(one) for one in made.questions]))
        assert score <= made.bar - 0.1, mistake
