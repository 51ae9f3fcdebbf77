"""Every row, in the order of the table."""

from benchmarks.rows import (
    classification,
    classification_grpc,
    converted,
    cores,
    cores_grpc,
    footprint,
    forecasting,
    generation,
    infer_stream,
    int8,
    peers_forecasts,
    peers_streams,
    peers_texts,
    streams,
    sweeps,
    ticks,
    whole,
    whole_grpc,
)
from benchmarks.workshop import Row

ROWS: tuple[Row, ...] = (
    *classification.ROWS,
    *classification_grpc.ROWS,
    *generation.ROWS,
    *int8.ROWS,
    *converted.ROWS,
    *cores.ROWS,
    *cores_grpc.ROWS,
    *forecasting.ROWS,
    *infer_stream.ROWS,
    *footprint.ROWS,
    *streams.ROWS,
    *sweeps.ROWS,
    *ticks.ROWS,
    *whole.ROWS,
    *whole_grpc.ROWS,
    *peers_texts.ROWS,
    *peers_forecasts.ROWS,
    *peers_streams.ROWS,
)
BY_NAME = {row.name: row for row in ROWS}
