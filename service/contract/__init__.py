"""The export contract: model.json as typed data, and files read safely. training imports nothing else of the
service.
"""
