"""Tests of nebula.cluster."""
