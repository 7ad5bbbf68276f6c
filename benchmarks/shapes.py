"""The dtypes and shapes that every claim about speed is made for."""

DTYPES = ["float32", "float64"]
# (rows, classes) by their product: a benchmark's parameter must be a number to be an x axis.
SHAPES = {
    rows * classes: (rows, classes)
    for rows, classes in [
        (1, 10),
        (32768, 10),
        (1, 1048576),
        (65536, 100),
        (8192, 1000),
        (1048576, 10),
        (1024, 32000),
        (256, 128256),
    ]
}
AXIS_0 = [8192 * 1000]  # which is measured with the classes first, too
