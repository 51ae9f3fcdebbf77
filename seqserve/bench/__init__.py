"""The load generator behind `seqserve bench`: what is sent, when, and what became of it. Needs the client's
packages alone.
"""
