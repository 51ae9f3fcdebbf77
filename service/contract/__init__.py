"""The export contract between training and the service: model.json as typed data, and safe file reads."""
