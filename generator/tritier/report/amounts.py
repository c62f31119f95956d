"""Numbers with units, short, as people read them."""

from __future__ import annotations

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_FLOP_UNITS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP")


def bytes_text(count: float | None) -> str:
    """'3.5 MiB'; 'unknown' for None."""
    return _scaled(count, 1024, _BYTE_UNITS)


def flops_text(count: float | None) -> str:
    """'1.2 GFLOP'; 'unknown' for None."""
    return _scaled(count, 1000, _FLOP_UNITS)


def ms_text(value: float | None) -> str:
    """'3.52 ms', '128 ms' with three digits; 'unknown' for None."""
    return "unknown" if value is None else f"{digits(value)} ms"


def digits(value: float) -> str:
    """Three significant digits, more before the point; two of what is below a tenth."""
    if value == 0:
        return "0"
    if abs(value) < 0.095:
        return f"{value:.2g}"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def _scaled(count: float | None, step: int, units: tuple[str, ...]) -> str:
    if count is None:
        return "unknown"
    value, index = float(count), 0
    while value >= step * 0.9995 and index < len(units) - 1:
        value, index = value / step, index + 1
    return f"{value:.0f} {units[0]}" if index == 0 else f"{digits(value)} {units[index]}"
