"""Python client of seqserve, a gRPC service for recurrent networks.

    from seqserve import Client

    with Client() as client:
        for piece in client.generate("ROMEO:", max_tokens=200, seed=7):
            print(piece.text, end="", flush=True)

`AsyncClient` is the asyncio equivalent. Results are dataclasses, and failures raise a SeqserveError. The
generated messages and stubs are in `seqserve.v1`.
"""

from seqserve.aio import AsyncClient
from seqserve.aio_calls import AsyncClassifyStream, AsyncForecastStream, AsyncTextStream
from seqserve.aio_infer_streams import AsyncInferStream
from seqserve.aio_watching import AsyncEngineWatch
from seqserve.calls import ClassifyStream, ForecastStream, TextStream
from seqserve.client import Client
from seqserve.connection import USE_CLIENT_TIMEOUT, tls
from seqserve.engine_results import EngineCounters, EngineTick, EngineTicks, RowKind, TickKind, TickRow
from seqserve.errors import (
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotServed,
    Overloaded,
    PermissionDenied,
    SeqserveError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
    WrongContext,
    WrongType,
    WrongValue,
)
from seqserve.infer_streams import InferStream
from seqserve.results import (
    Classification,
    ClassifyAnswer,
    FeatureInfo,
    FinishReason,
    Forecast,
    ForecastStep,
    Generation,
    LabelProbability,
    LayerInfo,
    ModelCard,
    ModelInfo,
    ModelStatus,
    Quantile,
    TextPiece,
    TextScore,
    TokenAlternative,
    Usage,
)
from seqserve.retry import Retry
from seqserve.sequence_results import InferAnswer, SequenceOutput, TextSpan
from seqserve.tabular import Answers
from seqserve.version import __version__
from seqserve.watching import EngineWatch

__all__ = [
    "USE_CLIENT_TIMEOUT",
    "Answers",
    "AsyncClassifyStream",
    "AsyncClient",
    "AsyncEngineWatch",
    "AsyncForecastStream",
    "AsyncInferStream",
    "AsyncTextStream",
    "Cancelled",
    "Classification",
    "ClassifyAnswer",
    "ClassifyStream",
    "Client",
    "ClientClosed",
    "DeadlineExceeded",
    "EngineCounters",
    "EngineTick",
    "EngineTicks",
    "EngineWatch",
    "FeatureInfo",
    "FinishReason",
    "Forecast",
    "ForecastStep",
    "ForecastStream",
    "Generation",
    "InferAnswer",
    "InferStream",
    "InvalidArgument",
    "LabelProbability",
    "LayerInfo",
    "ModelCard",
    "ModelInfo",
    "ModelStatus",
    "NotFound",
    "NotServed",
    "Overloaded",
    "PermissionDenied",
    "Quantile",
    "Retry",
    "RowKind",
    "SeqserveError",
    "SequenceOutput",
    "ServerFailure",
    "TextPiece",
    "TextScore",
    "TextSpan",
    "TextStream",
    "TickKind",
    "TickRow",
    "TokenAlternative",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "Violation",
    "WrongContext",
    "WrongType",
    "WrongValue",
    "__version__",
    "tls",
]
