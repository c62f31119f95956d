"""The processor of this machine, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def processor_name() -> str:
    """Its name; empty where nothing tells it."""
    return _facts().get("model name", "")


def processor_facts() -> str:
    """Its name, and whether it adds up products of 8-bit integers by itself."""
    facts = _facts()
    name = facts.get("model name", "unknown")
    flags = facts.get("flags", "").split()
    if not flags:
        return name
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    vnni = "VNNI" if {"avx512_vnni", "avx_vnni"} & set(flags) else "no VNNI"
    return f"{name} ({wide}, {vnni})"


def _facts() -> dict[str, str]:
    """Of the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = [line.partition(":") for line in text.splitlines()]
    return {key.strip(): value.strip() for key, _, value in reversed(pairs)}
