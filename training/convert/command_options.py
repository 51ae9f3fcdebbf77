"""Declares the options of `python -m training convert`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

TaskName = Literal["sequences", "text-generation", "text-classification", "forecasting"]
Kind = Literal["logits", "probabilities", "numbers", "embedding"]

Network = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="an .onnx file, a .keras file, or package.module:function, which returns an nn.Module",
        show_default=False,
    ),
]
Name = Annotated[
    str, typer.Option(help="name of the model, as requests will give it [default: that of the file]")
]
Repository = Annotated[Path, typer.Option(help="folder of models to write to")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="weights of the module; read as tensors alone, never unpickled"),
]
Examples = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=(
            "inputs and outputs of your own pipeline, .npz or .jsonl: checked through tokenizer, scaling "
            "and network, and kept as golden examples"
        ),
    ),
]
Task = Annotated[
    TaskName | None, typer.Option(help="[default: sequences, or text-generation of a language model]")
]
Labels = Annotated[
    str | None, typer.Option(metavar="FILE|A,B", help="names of the classes, in the order of the outputs")
]
Output = Annotated[Kind | None, typer.Option(help="what the outputs are [default: found, and said]")]
Several = Annotated[
    bool | None,
    typer.Option("--several/--exclusive", help="several labels may hold at once (sigmoid), or exactly one"),
]
Every = Annotated[
    bool | None,
    typer.Option("--every/--last", help="answer for every time step, or the last [default: as it was made]"),
]
Features = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON: names, units, mean and scale of the input, or a scikit-learn scaler's attributes",
    ),
]
TargetFeatures = Annotated[
    Path | None, typer.Option(metavar="FILE", help="the same of the numbers that come out")
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="a tokenizers file, Keras's word index or Tokenizer.to_json, or a token a line",
    ),
]
Characters = Annotated[
    str | None,
    typer.Option(metavar="FILE|STRING", help="characters in the order of their ids, a string or JSON"),
]
SourceTokenizer = Annotated[
    Path | None, typer.Option(metavar="FILE", help="the tokenizer of an encoder's texts")
]
SourceCharacters = Annotated[
    str | None, typer.Option(metavar="FILE|STRING", help="the characters of an encoder's texts")
]
StartToken = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="fed for an empty prompt: its text or id")
]
PrependStart = Annotated[
    bool | None,
    typer.Option(
        "--prepend-start/--no-prepend-start",
        help="feed it before every prompt [default: where no text can hold it]",
    ),
]
EndTokens = Annotated[
    str | None, typer.Option(metavar="TOKENS", help="tokens that end a text, texts or ids, with commas")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="tokens of a text where nobody says")]
Window = Annotated[
    int | None, typer.Option(min=1, help="length in time steps that every sequence had in training")
]
Pad = Annotated[Literal["left", "right"], typer.Option(help="side at which shorter ones were padded")]
PadValue = Annotated[float, typer.Option(help="token id or feature that pads")]
Longer = Annotated[
    Literal["refuse", "keep_first", "keep_last"], typer.Option(help="what becomes of longer ones")
]
State = Annotated[
    list[str] | None,
    typer.Option(metavar="IN:OUT", help="an input and the output that is its next value; repeatable"),
]
DataInput = Annotated[str | None, typer.Option(metavar="NAME", help="input that holds the sequence")]
OutputName = Annotated[str | None, typer.Option(metavar="NAME", help="output to serve")]
LengthsInput = Annotated[str | None, typer.Option(metavar="NAME", help="input that holds the lengths")]
TimeFirst = Annotated[
    bool | None, typer.Option("--time-first/--batch-first", help="order of the input's axes")
]
Width = Annotated[
    int | None, typer.Option(min=1, help="numbers of a time step, where the graph leaves it open")
]
Overlap = Annotated[
    int, typer.Option(min=0, help="numbers of a time step that stand before the next one, too")
]
Fixed = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=NUMBER", help="an input that is always this; repeatable"),
]
Encoder = Annotated[
    Path | None, typer.Option(metavar="FILE", help="encoder whose end is this network's start")
]
Licence = Annotated[str, typer.Option(help="licence of the data or the weights, for the card")]
Data = Annotated[str, typer.Option(help="what it was trained on, for the card")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="convert, prove and report; write nothing")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object instead of the report")]
