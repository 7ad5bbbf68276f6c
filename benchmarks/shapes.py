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

# What options and other targets are priced at: few classes, and the pixels of images, whose classes
# lie on axis 1; (shape with the classes last, axis of the classes) by the number of elements.
PRICED = {
    262144 * 3: ((262144, 3), -1),
    300000 * 10: ((300000, 10), -1),
    2 * 111 * 250 * 21: ((2, 111, 250, 21), 1),
    8192 * 1000: ((8192, 1000), -1),
}


def name_of(shape, axis=-1):
    """Return a shape as people write it: as the array has it."""
    *outer, n_classes = shape
    if axis == -1:
        return "x".join(map(str, shape))
    outer.insert(axis, n_classes)
    return f"{'x'.join(map(str, outer))},axis={axis}"
