"""Nebula: a distributed event-streaming server on Twisted that speaks Apache Kafka's wire protocol."""

__version__ = "0.1.0"
