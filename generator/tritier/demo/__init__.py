"""The demonstration: one photograph through a network that is split over three servers."""

from tritier.demo.run import ComponentRow, DemoResult, Latency, run_demo

__all__ = ["ComponentRow", "DemoResult", "Latency", "run_demo"]
