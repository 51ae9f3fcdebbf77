"""Series: read with care, cut by position, turned into features by the contract's formula."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import GOOG_TABLE, OHLCV, made_up, random_walk, write_prices
from training.data.series import Table, choose, describe, features_of, read_values, split, targets_of
from training.data.sources import GOOG, own_data
from training.errors import TrainingError


def test_goog_is_cut_as_recorded() -> None:
    history = split(read_values(GOOG_TABLE))
    assert (history.develop, history.held_out, len(history.values)) == (1277, 1503, 2148)
    # Computed apart from this code: the last value misses the next close by 9.758 USD, root mean square, over
    # the held-out days.
    close = history.values[:, 3]
    assert np.sqrt(np.mean((close[1503:] - close[1502:-1]) ** 2)) == pytest.approx(9.758, abs=1e-3)


def test_features_agree_with_a_calculation_by_hand() -> None:
    history, forecast = made_up()
    values = history.values[10:13]
    found = features_of(values, forecast)
    scale = [column.scale for column in forecast.columns]
    assert found[0, 1] == pytest.approx(
        np.log(values[0, 1] / values[0, 3]) / scale[1], rel=1e-5
    )  # high against its own close
    assert found[0, 4] == 0  # volume against itself
    assert found[2, 0] == pytest.approx(
        np.log(values[2, 0] / values[1, 3]) / scale[0], rel=1e-5
    )  # open against the close before
    assert found[2, 4] == pytest.approx(np.log(values[2, 4] / values[1, 4]) / scale[4], rel=1e-5)


def test_scaled_features_of_the_training_part_deviate_by_one() -> None:
    history, forecast = made_up(400)
    features = features_of(history.values[: history.develop], forecast)
    np.testing.assert_allclose(features[1:].std(axis=0), 1, atol=0.01)
    scaled = targets_of(history, forecast)[: history.develop - forecast.horizon] / forecast.scales
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=0.05)


def test_targets_are_changes_from_the_last_value_and_end_with_the_series() -> None:
    history, forecast = made_up()
    targets, close = targets_of(history, forecast), history.values[:, 3]
    assert targets[20, 4] == pytest.approx(np.log(close[25] / close[20]))
    assert np.isnan(targets[-3]).tolist() == [False, False, True, True, True]


def test_prices_refer_to_the_target_and_other_columns_to_themselves() -> None:
    _, forecast = made_up()
    assert [(column.name, column.reference, column.transform) for column in forecast.columns] == [
        *((name, "close", "log") for name in OHLCV[:4]),
        ("volume", "volume", "log"),
    ]


def test_values_that_are_not_positive_take_no_logarithm() -> None:
    history, _ = made_up()
    history.values[5, 4] = 0
    history.values[6, 0] = -1
    forecast = describe(history, GOOG_TABLE)
    assert {column.transform for column in forecast.columns} == {"none"}
    assert np.isfinite(features_of(history.values, forecast)).all()


@pytest.mark.parametrize(
    ("target", "prices", "expected"),
    [
        ("close", None, {"open", "close"}),
        ("volume", None, {"volume"}),
        ("close", ["volume"], {"close", "volume"}),
    ],
    ids=["usual names", "target of another unit", "named"],
)
def test_columns_of_the_targets_unit_are_found(
    target: str, prices: list[str] | None, expected: set[str]
) -> None:
    assert choose(GOOG, ("open", "close", "volume"), target, prices, "date").prices == expected


@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["no mark", "byte-order mark"])
@pytest.mark.parametrize(
    "header",
    [
        "DATE,Open,HIGH,Low,Close,Volume",
        " date , open,high , low,CLOSE , volume",
        "Date,Open ($),High,Low,Close,V",
    ],
)
def test_names_of_columns_in_any_case_make_the_same_model(tmp_path: Path, header: str, bom: str) -> None:
    values = random_walk(120)
    path = write_prices(tmp_path / "p.csv", values)
    expected = describe(split(values), choose(own_data(path), OHLCV[:4], "close", None, "date"))
    names = [name.strip() for name in header.split(",")]
    rows = path.read_text().partition("\n")[2]
    path.write_text(f"{bom}{header}\n{rows}", encoding="utf-8")
    for columns in (OHLCV[:4], names[1:5], [f" {name} " for name in OHLCV[:4]]):
        table = choose(own_data(path), columns, " Close", None, "date")
        found = describe(split(read_values(table)), table)
        assert [(one.scale, one.transform) for one in found.columns] == [
            (one.scale, one.transform) for one in expected.columns
        ], "all are changes from the target's last value"
        assert {one.reference.casefold() for one in found.columns} == {"close"}


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (
            "date,close,Close,low",
            ("close", "low"),
            "expected a column close, found 2 columns of that name, close and Close",
        ),
        (
            "date,close,Close,low",
            ("Close", "low"),
            "expected a column Close, found 2 columns of that name, close and Close",
        ),
        (
            "date,Close (USD),high,low",
            ("close", "Close (USD)"),
            r"expected columns of their own for close and Close \(USD\), found Close \(USD\) for both",
        ),
    ],
)
def test_columns_that_names_do_not_tell_apart_are_refused(
    tmp_path: Path, header: str, columns: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(header + "\n2001-01-01,1,2,3\n")
    with pytest.raises(TrainingError, match=message):
        read_values(choose(own_data(path), columns, columns[0], [columns[0]], "date"))


@pytest.mark.parametrize(
    ("columns", "target", "dates", "message"),
    [
        (("Close", "close"), "close", "date", "--columns: expected different names, found Close,close"),
        (
            ("Close", "Date"),
            "close",
            "date",
            "--columns: expected columns other than --date-column, found date",
        ),
        (
            ("Close (USD)", "Close (EUR)"),
            "close",
            "date",
            r"--target: .* found close, which means Close \(USD\) and",
        ),
    ],
)
def test_names_that_mean_two_columns_are_refused(
    columns: tuple[str, ...], target: str, dates: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        choose(GOOG, columns, target, None, dates)


def test_rows_are_put_in_order_of_their_dates(tmp_path: Path) -> None:
    values = random_walk(120)
    path = write_prices(tmp_path / "p.csv", values)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]))
    np.testing.assert_array_equal(read_values(_table(path)), values)


def _table(path: Path) -> Table:
    return choose(own_data(path), OHLCV, "close", None, "date")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[:99], "expected at least 100 rows to train and hold out from, found 99"),
        (
            lambda rows: [*rows, rows[0]],
            "line 122: column date: expected each date once, found 2001-01-01 in line 2, too",
        ),
        (
            lambda rows: [*rows, "yesterday,1,1,1,1,1"],
            "line 122: column date: expected a date as 2013-03-25, as in the rows .* 'yesterday'",
        ),
        (
            lambda rows: [*rows, "2002-01-01,1,1,1,nan,1"],
            "line 122: column close: expected a finite number, found 'nan'",
        ),
        (
            lambda rows: [*rows, "2002-01-01,1,1,1,n/a,1"],
            "line 122: column close: expected a finite number, found 'n/a'",
        ),
    ],
    ids=["too few rows", "a date twice", "no date", "NaN", "no number"],
)
def test_wrong_rows_are_refused_with_line_and_column(
    tmp_path: Path, spoil: Callable[[list[str]], list[str]], message: str
) -> None:
    path = write_prices(tmp_path / "p.csv", random_walk(120))
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *spoil(rows)]))
    with pytest.raises(TrainingError, match=message):
        read_values(_table(path))


def test_column_that_never_changes_is_refused() -> None:
    history, _ = made_up()
    history.values[:, 4] = 7
    with pytest.raises(TrainingError, match="column volume: expected values that change"):
        describe(history, GOOG_TABLE)


@pytest.mark.parametrize(
    ("columns", "target", "prices", "message"),
    [
        (("close", "close"), "close", None, "--columns: expected different names"),
        (("close",), "open", None, "--target: expected one of --columns"),
        (("close",), "close", ["open"], "--price-columns: expected one of --columns"),
    ],
    ids=["a column twice", "unknown target", "unknown price column"],
)
def test_names_that_do_not_fit_together_are_refused(
    columns: tuple[str, ...], target: str, prices: list[str] | None, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        choose(GOOG, columns, target, prices, "date")
