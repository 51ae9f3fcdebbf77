"""Open Inference Protocol, over the tasks that the typed services use."""
