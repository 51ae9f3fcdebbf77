"""One set of results as a table for people and as numbers for model.json."""

from rich.console import Console

from training.recipes.report import Contender, Measure, Results

RESULTS = Results(
    "title",
    (Contender("lstm", "held_out"), Contender("5-gram", "baseline_5gram")),
    (Measure("loss, nats", "loss", (1.25, None)),),
)


def test_numbers_are_named_by_contender_and_measure() -> None:
    assert RESULTS.metrics() == {"held_out_loss": 1.25}


def test_baselines_stand_in_the_same_table() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(RESULTS.table())
    for text in (capture.get(), RESULTS.markdown()):
        assert all(word in text for word in ("lstm", "5-gram", "loss, nats", "1.250"))
    assert RESULTS.markdown().splitlines()[-1] == "| loss, nats | 1.250 |  |"


def test_results_without_a_contender_lose_its_numbers_and_rows_of_its_own() -> None:
    contenders = (
        Contender("lstm", "held_out"),
        Contender("int8", "held_out_int8"),
        Contender("5-gram", "baseline_5gram"),
    )
    measures = (
        Measure("loss", "loss", (1.0, 2.0, 3.0)),
        Measure("agreement", "agreement", (None, 99.0, None)),
    )
    left = Results("title", contenders, measures).without("held_out_int8")
    assert left.metrics() == {"held_out_loss": 1.0, "baseline_5gram_loss": 3.0}
    assert [measure.key for measure in left.measures] == ["loss"]
