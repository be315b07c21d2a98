"""The record batch: one format for disk, peers and clients.

Everything that Nebula stores, replicates and serves is a Kafka record batch of format v2, byte for byte as its producer
sent it. `batch` views and stamps headers, `record` builds and reads records, `control` has Nebula's own batches (term
markers, membership changes), `compression` the codecs with bounded output, `start` what stands for a deleted prefix.
"""
