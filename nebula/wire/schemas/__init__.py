"""The protocol's facts as text: one block per message, a line per field, indentation for structs.

``request KEY NAME flexible-from`` opens a block; a field line is ``name type [versions] [null versions] [tag N versions]
[= default]``; versions are ``3+``, ``0-12`` or ``7``; a type ending in ``[]`` is an array, a bare ``[]`` one of structs.
"""
