"""Measuring deployed models: sweeps by perf_analyzer, load tests by Locust."""
