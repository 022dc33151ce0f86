"""Figures as people write them, for sentences, tables, cards and pages: 2,000 and 0.001, not 2e+03 and 1e-03."""

import math

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2) -> str:
    """So many digits, without powers of ten where people would not write them: '0.001', '0.00031', '2,000', '3.1 × 10⁻⁷'."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    if 1e-4 <= abs(value) < 1e7:
        text = f"{float(f'{mantissa}e{power}'):,.{max(0, digits - 1 - int(power))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    raised = f"10{str(int(power)).translate(_RAISED)}"
    return raised if float(mantissa) == 1 else f"{float(mantissa):g} × {raised}"
