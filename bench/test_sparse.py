"""Dense to CSR and back at 90 % zeros."""

import numpy as np
import scipy.sparse

import secateur as sc


def test_dense_to_csr(yardstick, pruned):
    ours = yardstick.measure("dense -> CSR, new memory", lambda: sc.to_sparse(pruned), bound=5)
    scipys = scipy.sparse.csr_array(pruned)

    def check(result):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(result, part), getattr(scipys, part))

    check(ours)
    yardstick.rival(
        "SciPy csr_array(dense)",
        lambda: scipy.sparse.csr_array(pruned),
        check,
        module="scipy",
        at_least=20,
    )


def test_csr_to_dense(yardstick, pruned):
    csr = sc.to_sparse(pruned)

    def check(result):
        np.testing.assert_array_equal(result, pruned)

    check(yardstick.measure("CSR -> dense, new memory", lambda: sc.to_dense(csr)))
    yardstick.rival("SciPy toarray()", csr.toarray, check, module="scipy", at_least=3)


def test_csr_to_dense_out(yardstick, pruned):
    csr = sc.to_sparse(pruned)
    out = np.ones(pruned.shape, pruned.dtype)

    def check(result):
        np.testing.assert_array_equal(result, pruned)

    check(yardstick.measure("CSR -> dense, used memory", lambda: sc.to_dense(csr, out=out)))
    yardstick.rival(
        "SciPy toarray(out=)", lambda: csr.toarray(out=out), check, module="scipy", at_least=3
    )
