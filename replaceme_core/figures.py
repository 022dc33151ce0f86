"""Figures as people write them, for sentences, tables and cards: 2,000 and 0.001, not 2e+03 and 1e-03."""

import math


def amount(value: float, digits: int = 2) -> str:
    """The value with that many significant digits: '2,000', '0.001', '43'; '3.1e-7' below 0.0001 and '1.5e8' from 10 million on."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if -4 <= exponent < 7:
        text = f"{rounded:,.{max(0, digits - 1 - exponent)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{rounded / 10**exponent:g}e{exponent}"
