"""The shell: the only server code that knows a reactor. Start reading at `partition.py`, then `drain.py`, then `node.py`."""
