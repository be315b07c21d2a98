"""What committed records mean: the cluster's state as the controller's log says, and each partition's producers.

Everything here is a pure function of the log: no clock, no randomness, no look-ups at apply time (RELIABILITY 41), so all
nodes that have applied the same records hold the same state.
"""
