"""Train a model, measure it on held-out data beside the simplest baseline, export it for the service.

    python -m training generate my.txt                            # a text
    python -m training classify my.csv                            # labelled texts
    python -m training forecast my.csv --target temperature       # a table of numbers
    python -m training charlm                                     # Shakespeare, about 40 minutes on 2 cores
    python -m training sentiment                                  # movie reviews, a minute
    python -m training stock                                      # GOOG, seconds
    torchrun --nproc-per-node 2 -m training charlm                # two processes

Each run keeps a checkpoint in runs/<name>/; an export becomes the next version,
<repository>/<name>/<version>/.
"""

import sys

from training.interrupts import end_at_interrupt
from training.supervising import go_on_in_child

if __name__ == "__main__":
    end_at_interrupt()  # before what takes seconds to import
    if sys.argv[1:2] == ["convert"]:
        go_on_in_child("the conversion")

# isort: split
from service.contract.extras import require

require("python -m training", "train")

from seqserve.cli.output import standard_streams
from training.commands.program import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    with standard_streams():
        sys.exit(main())
