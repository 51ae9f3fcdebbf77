"""The HTTP door: metrics, liveness and readiness."""
