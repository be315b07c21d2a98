"""Which versions are answered. Produce advertises 0 for librdkafka before 2.11.1 (gotcha 6) and serves from 3."""

SERVED: dict[int, tuple[int, int]] = {
    0: (0, 11),
    1: (4, 16),
    2: (1, 7),
    3: (0, 12),
    8: (2, 9),
    9: (1, 9),
    10: (0, 6),
    11: (0, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 6),
    16: (0, 5),
    18: (0, 4),
    19: (2, 7),
    20: (1, 6),
    22: (0, 5),
    23: (2, 4),
    32: (1, 4),
    42: (0, 2),
    47: (0, 0),
    60: (0, 1),
}
LOWEST: dict[int, int] = {0: 3}
"""Where the lowest version served is above the lowest advertised."""
