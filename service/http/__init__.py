"""Plain HTTP endpoints: metrics, liveness and readiness."""
