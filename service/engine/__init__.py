"""The recurrent engine: sequences of every length side by side, a few time steps at a time.

sequence.py (one row's life), scheduler.py (who runs next), slots.py (rows of state), plan.py (what a chunk
tick feeds), sampling.py (logits to tokens), engine.py (the loop), delivery.py (results to asyncio). Nothing here knows gRPC or what the numbers mean.
"""
