"""Tests, laid out as nebula/ is. tests/process and tests/interop start real nodes; the rest is quick."""
