"""Print src/coefficients.h: every constant of the approximations, with its error.

Run ``python src/coefficients.py`` to print the header, ``python src/coefficients.py
--write`` to replace it. The polynomials are near-minimax fits in 60-digit arithmetic
(mpmath). Each coefficient is rounded to the dtype, lowest power first, and those of the higher
powers are fitted again. The printed error is that of the rounded polynomial.
"""

import sys
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 60
LN2 = mp.log(2)

HEADER = Path(__file__).with_name("coefficients.h")


def round_to(value, bits):
    """Round ``value`` to ``bits`` significant bits, half to even."""
    if value == 0:
        return mpf(0)
    exponent = int(mp.floor(mp.log(abs(value), 2)))
    unit = mpf(2) ** (exponent - bits + 1)
    return mp.nint(value / unit) * unit


def truncate_to_grid(value, bits_after_point):
    """Round ``value`` to a multiple of ``2**-bits_after_point``."""
    return mp.nint(value * mpf(2) ** bits_after_point) / mpf(2) ** bits_after_point


def fit(f, weight, low, high, powers, fixed):
    """Fit ``sum c_k x**powers[k]`` to ``f - sum(fixed)`` by weighted least squares.

    The points are 120 Chebyshev nodes of [low, high]; the largest error is within a factor of two
    of the minimax fit. ``fixed`` holds the (power, coefficient) pairs that are already chosen.
    Returns the coefficients c_k.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle - half * mp.cos(mp.pi * (k + mpf(1) / 2) / 120) for k in range(120)]
    left = mp.matrix(len(nodes), len(powers))
    right = mp.matrix(len(nodes), 1)
    for row, x in enumerate(nodes):
        for column, power in enumerate(powers):
            left[row, column] = weight(x) * x**power
        right[row] = weight(x) * (f(x) - sum(c * x**p for p, c in fixed))
    return mp.lu_solve(left.T * left, left.T * right)


def fit_rounded(f, weight, low, high, powers, bits):
    """Fit ``f``, with each coefficient rounded to ``bits`` before those after it are fitted again.

    Returns the rounded coefficients and log2 of the largest weighted error of their polynomial.
    """
    fixed = []
    for k in range(len(powers)):
        fitted = fit(f, weight, low, high, powers[k:], fixed)
        fixed.append((powers[k], round_to(fitted[0], bits)))
    grid = [low + (high - low) * k / 2000 for k in range(2001)]
    worst = max(abs(weight(x) * (sum(c * x**p for p, c in fixed) - f(x))) for x in grid)
    return [c for _, c in fixed], mp.log(worst, 2)


def exp_tail(r):
    """Return (exp(r) - 1 - r) / r**2, also at r = 0."""
    if abs(r) < mpf("1e-3"):
        return sum(r**k / mp.factorial(k + 2) for k in range(20))
    return (mp.exp(r) - 1 - r) / r**2


def log_tail(z):
    """Return (log((1 + s) / (1 - s)) / s - 2) / z with s = sqrt(z), also at z = 0."""
    if z < mpf("1e-4"):
        return sum(2 * z**k / (2 * k + 3) for k in range(20))
    s = mp.sqrt(z)
    return (mp.log((1 + s) / (1 - s)) / s - 2) / z


def hexadecimal(value, bits):
    """Return ``value`` as a C hexadecimal constant of float (24 bits) or double (53)."""
    assert round_to(value, bits) == value
    return float(value).hex() + ("f" if bits == 24 else "")


def define(name, value, bits, comment=""):
    """Return a line that defines ``name``."""
    return f"#define {name} {hexadecimal(value, bits)}{'  // ' + comment if comment else ''}\n"


def exp_section(bits, degree, ln2_bits, reach):
    """Return the constants of exp for one dtype: reduction and polynomial."""
    # r lies between log(3/4) and log(3/2). For a smaller r, exp(r) - 1 < -1/4 would be rounded to a
    # larger unit. n may be off by one where its argument is half way between two integers, and r
    # slightly outside: hence 1.0001.
    low, high = mp.log(mpf(3) / 4) * mpf("1.0001"), mp.log(mpf(3) / 2) * mpf("1.0001")
    powers = list(range(degree - 1))
    coefficients, error = fit_rounded(
        exp_tail, lambda r: r**2 * mp.exp(-r), low, high, powers, bits
    )
    middle, ln2_high = (low + high) / 2, truncate_to_grid(LN2, ln2_bits)
    lines = [
        f"// exp(r) = 1 + r + r^2 (E0 + E1 r + ...), {mp.nstr(low, 6)} <= r <= {mp.nstr(high, 6)}:"
        f" relative error 2^{mp.nstr(error, 4)}.\n",
        define("EXP_MIDDLE", round_to(middle, 10), bits, "the middle of this interval"),
        define("LOG2_E", round_to(1 / LN2, bits), bits),
        define("LN2_HIGH", ln2_high, bits, f"a multiple of 2^-{ln2_bits}: n * LN2_HIGH is exact"),
        define("LN2_LOW", round_to(LN2 - ln2_high, bits), bits),
        define(
            "EXP_REACH",
            round_to(reach * LN2, bits),
            bits,
            f"{reach} log(2): for x - shift up to minus this, 2^(n + EXP_SCALE) is 0",
        ),
        f"#define EXP_TERMS {len(coefficients)}\n",
        "#define EXP_COEFFICIENTS {",
        ", ".join(hexadecimal(c, bits) for c in coefficients),
        "}\n",
    ]
    return "".join(lines)


def log_section():
    """Return the constants of log1p, which is computed in double for both dtypes."""
    edge = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mpf("1.0001")
    # The weight z / 2 makes the error relative to log((1 + s)/(1 - s)), about 2 s.
    coefficients, error = fit_rounded(log_tail, lambda z: z / 2, mpf(0), edge, list(range(7)), 53)
    high = truncate_to_grid(LN2, 41)
    lines = [
        "// log((1 + s)/(1 - s)) = 2 s + s z (L0 + L1 z + ...), z = s^2 <= "
        f"{mp.nstr(edge, 6)}: relative error 2^{mp.nstr(error, 4)}.\n",
        define("LOG_LN2_HIGH", high, 53, "k * LOG_LN2_HIGH is exact for |k| < 2^11"),
        define("LOG_LN2_LOW", round_to(LN2 - high, 53), 53),
        f"#define LOG_TERMS {len(coefficients)}\n",
        "#define LOG_COEFFICIENTS {",
        ", ".join(hexadecimal(c, 53) for c in coefficients),
        "}\n",
    ]
    return "".join(lines)


def header():
    """Return the text of src/coefficients.h."""
    return "".join(
        [
            "// Constants of exp and log1p. Printed by src/coefficients.py; do not edit.\n",
            "// clang-format off\n",
            "#ifdef CYSOFTMAX_F32\n",
            exp_section(bits=24, degree=6, ln2_bits=15, reach=167),
            "#else\n",
            exp_section(bits=53, degree=11, ln2_bits=41, reach=1215),
            log_section(),
            "#endif\n",
            "// clang-format on\n",
        ]
    )


if __name__ == "__main__":
    text = header()
    if "--write" in sys.argv[1:]:
        HEADER.write_text(text)
    else:
        print(text, end="")
