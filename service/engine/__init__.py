"""The recurrent engine: rows of every length side by side, a few time steps at a time.

request.py (one row's life), queue.py (who waits), scheduler.py (who runs next), active.py (who holds slots),
slots.py (arrays of state), prefill.py, prefill_buffer.py and chunks.py (chunk ticks), decode.py (step ticks),
sampling.py (logits to tokens), prompt_cache.py, deadlines.py, estimator.py, inbox.py (the way in), engine.py
(the turn), driver.py (who calls it), group.py (several engines, and refusals at once), streaming.py
(asyncio's side). Nothing here knows gRPC or what the numbers mean.
"""
