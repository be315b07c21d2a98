"""Registers `twistd nebula`."""

from twisted.application.service import ServiceMaker

nebula = ServiceMaker("Nebula", "nebula.tap", "One node of a Nebula event-streaming cluster.", "nebula")
