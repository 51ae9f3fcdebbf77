"""The room of training: data, networks, recipes, export. It needs torch; the service never imports it."""

import os

# Before torch is loaded: threads that wait for each other sleep instead of spinning. On cores shared with
# other work, spinning made training 4 times slower (2 x 512 on 2 cores with 3 other busy processes: 2 steps
# in half a minute, 8 with sleeping threads).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# onnxruntime would write an identifier of this machine into the user's home and send it to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
