"""The recurrent engine: sequences of every length side by side, a few time steps at a time.

sequence.py (one row's life), scheduler.py and fairness.py (who runs next), room.py (who waits), pace.py
(whether a deadline can be met), slots.py (rows of state), prefill.py and decode.py (the two kinds of ticks),
plan.py (what a chunk tick feeds), sampling.py (logits to tokens), engine.py (the loop), group.py (several of
them), delivery.py and gather.py (results to asyncio). Nothing here knows gRPC or what the numbers mean.
"""
