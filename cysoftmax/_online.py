"""OnlineSoftmax: what is known of rows of which only some classes have been seen.

Its numbers, the totals, are made, merged and used by the core.
"""

import numpy as np

from cysoftmax import _calls
from cysoftmax._docs import documented


class OnlineSoftmax:
    """
    What is known of rows of logits of which some classes have been seen: maximum and sum.

    Of each row it keeps the largest logit and, in three float64, the sum of the exponentials.
    States of different classes of the same rows are merged, in any order. With the state of all
    classes, softmax, loss and gradient of each block of classes can be computed by itself. So the
    logits may lie in several files, processes or computers, of which only states are exchanged: 32
    bytes for each row.

    States are made by ``OnlineSoftmax.of``. They do not change, and can be pickled.

    Notes
    -----
    Merged results have the error bounds of `softmax`, `log_softmax`, `logsumexp`, `cross_entropy`
    and `cross_entropy_grad`, rows of which the model is certain included: a merge adds some 2**-64
    to the error of the sum without the largest term. The state of a single block gives the same
    bits as these functions. ``a.merge(b)`` has the same bits as ``b.merge(a)``; another grouping of
    three states may change last bits.

    References
    ----------
    M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax" (2018);
    docs/derivation.md, section 17.

    Examples
    --------
    >>> import functools
    >>> import numpy as np
    >>> from cysoftmax import OnlineSoftmax
    >>> blocks = np.log([[1.0, 2.0]]), np.log([[4.0, 1.0, 8.0]])
    >>> state = functools.reduce(OnlineSoftmax.merge, map(OnlineSoftmax.of, blocks))
    >>> state.softmax(blocks[1])
    array([[0.25  , 0.0625, 0.5   ]])
    >>> print(f"{state.cross_entropy(blocks[1][:, 2]):.6f}")    # log 2
    0.693147
    >>> state.cross_entropy_grad(blocks[1], np.array([4]), first_class=2)
    array([[ 0.25  ,  0.0625, -0.5   ]])
    """

    __slots__ = ("_dtype", "_temperature", "_totals")

    def __init__(self):
        raise TypeError("OnlineSoftmax is made by OnlineSoftmax.of(block)")

    @classmethod
    @documented
    def of(cls, block, /, *, axis=-1, temperature=1.0, where=None, n_threads=None):
        """
        Return the state of a block: logits of some of the classes of each row.

        Parameters
        ----------
        block : array_like of float32, float64, float16, bfloat16 or integers
            Logits, of any shape with at least one dimension and in any memory layout. There may be
            no classes. The other blocks must have the same rows and the same dtype.
        {axis}
        temperature : float, default 1.0
            The logits of all blocks are divided by this number, which must lie in
            [2**-60, 2**60].
        {where}
        {n_threads}

        Returns
        -------
        OnlineSoftmax

        Raises
        ------
        {errors}
        """
        return cls._make(*_calls.totals_of_block(block, axis, temperature, where, n_threads))

    @classmethod
    def _make(cls, totals, dtype, temperature):
        state = cls.__new__(cls)
        state._totals, state._dtype, state._temperature = totals, dtype, temperature
        return state

    def __repr__(self):
        return f"<OnlineSoftmax of rows of shape {self._shape}, {self._dtype}>"

    @property
    def _shape(self):
        return self._totals.shape[1:]

    def merge(self, other, /):
        """
        Return the state of the classes of this state and of another together.

        Parameters
        ----------
        other : OnlineSoftmax
            Of other classes of the same rows, with the same dtype and temperature.

        Returns
        -------
        OnlineSoftmax

        Raises
        ------
        TypeError
            If `other` is no state, or one of logits of another dtype.
        ValueError
            If it has rows of another shape, or another temperature.
        """
        if not isinstance(other, OnlineSoftmax):
            raise TypeError(f"other must be an OnlineSoftmax; got {type(other).__name__}")
        if other._dtype != self._dtype:
            raise TypeError(f"other must be of dtype {self._dtype}; got {other._dtype}")
        if other._shape != self._shape:
            raise ValueError(f"other must have rows of shape {self._shape}; got {other._shape}")
        if other._temperature != self._temperature:
            raise ValueError(
                f"other must have temperature {self._temperature}; got {other._temperature}"
            )
        totals = _calls.merge_totals(self._totals, other._totals, self._temperature)
        return self._make(totals, self._dtype, self._temperature)

    @property
    def max(self):
        """The largest logit of each row: -inf if there is none, NaN if any logit is NaN. An array
        of float32 for logits of float32, float16 or bfloat16, otherwise of float64."""
        return self._totals[0].astype(self._row_dtype)

    @property
    def logsumexp(self):
        """The logsumexp of the logits over the temperature, in nats, of each row. Dtype and
        accuracy are those of cysoftmax.logsumexp."""
        return _calls.logsumexp_of_totals(self._totals, self._dtype, self._temperature)

    @property
    def _row_dtype(self):
        return np.float64 if self._dtype.itemsize == 8 else np.float32

    @documented
    def softmax(self, block, /, *, axis=-1, where=None, out=None, n_threads=None):
        """
        Return the probabilities of the classes of a block, with the sums of all classes.

        Parameters
        ----------
        block : array_like
            One of the blocks of which this is the state. This is not checked.
        {axis}
        where : array_like of bool, optional
            The mask that the block had.
        {out}
        {n_threads}

        Returns
        -------
        ndarray
            Of the shape, dtype and memory layout of the block.

        Raises
        ------
        {errors}
        """
        return self._softmax(False, block, axis, where, out, n_threads)

    @documented
    def log_softmax(self, block, /, *, axis=-1, where=None, out=None, n_threads=None):
        """
        Return the logarithms of the probabilities of the classes of a block, in nats.

        Parameters
        ----------
        block : array_like
            One of the blocks of which this is the state. This is not checked.
        {axis}
        where : array_like of bool, optional
            The mask that the block had.
        {out}
        {n_threads}

        Returns
        -------
        ndarray
            Of the shape, dtype and memory layout of the block.

        Raises
        ------
        {errors}
        """
        return self._softmax(True, block, axis, where, out, n_threads)

    def _softmax(self, log, block, axis, where, out, n_threads):
        return _calls.softmax_of_block(
            log, self._totals, self._dtype, block, axis, self._temperature, where, out, n_threads
        )

    @documented
    def cross_entropy(self, target_logit, /, *, sample_weight=None, z_loss=0.0, reduction="mean"):
        """
        Return the cross-entropy loss of rows, given the logit of the label of each.

        Parameters
        ----------
        target_logit : array_like
            The logit of the label of each row, of the shape of the rows and the dtype of the
            blocks. That it is one of the row's logits is not checked.
        {block_weight}
        {z_loss}
        reduction : {{"mean", "sum", "none"}}, default "mean"
            The mean or the sum of the losses of all rows, or the loss of each row. "mean" divides
            by the sum of the weights of the rows.

        Returns
        -------
        float or ndarray
            The loss in nats, as of cysoftmax.cross_entropy. A row that is masked throughout has
            loss and weight 0.

        Raises
        ------
        TypeError
            If an argument has a wrong kind or dtype.
        ValueError
            If an argument has a wrong shape or value.
        """
        logit = _calls.convert(target_logit, "target_logit")
        if logit.dtype.kind in "iu" and self._dtype == np.float64:
            logit = logit.astype(np.float64)  # as those of a block of integers
        given = isinstance(target_logit, np.ndarray | np.generic)  # a list has no dtype
        if given and logit.dtype.newbyteorder("=") != self._dtype:
            raise TypeError(f"target_logit must have dtype {self._dtype}; got {logit.dtype}")
        if logit.shape != self._shape:
            raise ValueError(f"target_logit must have shape {self._shape}; got {logit.shape}")
        return _calls.loss_of_labels(
            self._totals, self._dtype, self._temperature, logit.astype(self._dtype),
            sample_weight, z_loss, reduction,
        )  # fmt: skip

    @documented
    def cross_entropy_grad(
        self,
        block,
        target,
        /,
        first_class=0,
        *,
        axis=-1,
        sample_weight=None,
        ignore_index=None,
        z_loss=0.0,
        where=None,
        reduction="mean",
        scale=1.0,
        out=None,
        n_threads=None,
    ):
        """
        Return the gradient of the loss with respect to the logits of a block.

        Parameters
        ----------
        block : array_like
            One of the blocks of which this is the state. This is not checked.
        target : array_like
            The class index of each row, counted over all blocks, of any integer dtype and of the
            shape of the rows. The classes of this block are first_class, first_class + 1, ...; a
            label of another block subtracts nothing here, and neither does one beyond all blocks,
            whose number is not known.
        first_class : int, default 0
            The index of the first class of the block.
        {axis}
        {block_weight}
        ignore_index : int, optional
            Rows with this label are ignored: their weight and their gradient are 0.
        {z_loss}
        where : array_like of bool, optional
            The mask that the block had.
        reduction : {{"mean", "sum", "none"}}, default "mean"
            Of which loss the gradient is: of the mean, or of the sum ("none" gives the same).
        {scale}
        {out}
        {n_threads}

        Returns
        -------
        ndarray
            Of the shape, dtype and memory layout of the block.

        Raises
        ------
        IndexError
            If a label is negative, unless it is `ignore_index`.
        {errors}
        """
        return _calls.grad_of_labels(
            self._totals, self._dtype, self._temperature, block, target, first_class,
            axis, sample_weight, ignore_index, z_loss, where, reduction, scale, out, n_threads,
        )  # fmt: skip
