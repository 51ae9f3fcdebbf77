"""The load generator behind `seqserve bench`: workload, arrival times, and recorded results.

It needs only the packages that the client depends on.
"""
