import warnings

import ml_dtypes
import numpy as np
import pytest

from secateur.calibration import GENERATOR_SAMPLES, BatchSource, CalibrationData, iterate_batches
from secateur.errors import ArgumentTypeError, CalibrationWarning, InvalidArgumentError
from secateur.signature import InputSignature, InputSpec

ONE = InputSignature((InputSpec("x", (None, 3), "float32"),))
TWO = InputSignature(
    (InputSpec("a", (None, 3), "float32"), InputSpec("b", (None, 2), "int32")), "list"
)
NAMED = InputSignature(TWO.inputs, "dict")
X = np.arange(300, dtype=np.float32).reshape(100, 3)
B = np.arange(200).reshape(100, 2)
Y = np.zeros(100)


def joined(batches):
    batches = list(batches)
    if isinstance(batches[0], dict):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    if isinstance(batches[0], list):
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return np.concatenate(batches)


def stream(*element):
    for start in range(0, 100, 40):
        rows = slice(start, start + 40)
        parts = [
            [inner[rows] for inner in part] if isinstance(part, list) else part[rows]
            for part in element
        ]
        yield parts[0] if len(parts) == 1 else tuple(parts)


@pytest.mark.parametrize(
    "data",
    [X, [X], (X,), (X, Y), (X, Y, Y), {"x": X}, ({"x": X}, Y), {"x": X, "unused": Y}],
    ids=["x", "[x]", "(x,)", "(x,y)", "(x,y,w)", "dict", "(dict,y)", "dict+"],
)
@pytest.mark.parametrize("batch_size", [1, 32, 100, 1000])
def test_one_input(data, batch_size):
    batches = list(iterate_batches(data, batch_size, signature=ONE))
    assert len(batches) == -(-100 // batch_size)
    np.testing.assert_array_equal(joined(batches), X)


@pytest.mark.parametrize(
    "data",
    [[X, B], (X, B), ([X, B], Y), ((X, B), Y, Y), {"b": B, "a": X}, ({"b": B, "a": X}, Y)],
    ids=["list", "tuple", "(list,y)", "(tuple,y,w)", "dict", "(dict,y)"],
)
def test_two_inputs(data):
    first, second = joined(iterate_batches(data, signature=TWO))
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, B)


def test_named_inputs_come_by_name():
    found = joined(iterate_batches(({"b": B, "a": X, "c": Y}, Y), signature=NAMED))
    assert list(found) == ["a", "b"]
    assert found["b"].dtype == np.int32


@pytest.mark.parametrize(
    ("data", "signature"),
    [
        (lambda: stream(X), ONE),
        (lambda: stream(X, Y), ONE),
        (lambda: ([x, y] for x, y in stream(X, Y)), ONE),
        (lambda: stream(X, Y, Y), ONE),
        (lambda: stream([X, B], Y), TWO),
        (lambda: stream(X, B), TWO),
        (lambda: ({"a": a, "b": b} for a, b in stream(X, B)), NAMED),
        (lambda: list(stream(X)).__iter__(), ONE),
    ],
)
def test_generators_are_read_once_and_kept(data, signature):
    found = CalibrationData(data(), 7, signature=signature)
    passes = [joined(found), joined(found)]
    for one in passes:
        first = one if signature is ONE else next(iter(one.values() if signature is NAMED else one))
        np.testing.assert_array_equal(first, X)
    assert found.num_samples == 100


def test_iterables_are_read_anew():
    class Loader:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return stream(X, Y)

    loader = Loader()
    found = CalibrationData(loader, signature=ONE)
    np.testing.assert_array_equal(joined(found), joined(found))
    assert loader.passes == 2


@pytest.mark.parametrize("data", [X, lambda: stream(X, Y)])
@pytest.mark.parametrize("limit", [32, 40, 41, 80, 100, 500])
def test_no_more_than_max_samples(data, limit):
    data = data() if callable(data) else data
    found = CalibrationData(data, 40, signature=ONE, max_samples=limit)
    np.testing.assert_array_equal(joined(found), X[:limit])
    assert found.num_samples == min(limit, 100)


def test_an_endless_generator_stops():
    def endless():
        while True:
            yield X

    with pytest.warns(CalibrationWarning, match=f"more than {GENERATOR_SAMPLES}"):
        assert len(joined(iterate_batches(endless(), signature=ONE))) == GENERATOR_SAMPLES
    assert len(joined(iterate_batches(endless(), signature=ONE, max_samples=250))) == 250


def test_no_batch_is_drawn_that_is_not_needed():
    drawn = []

    def counting():
        for index in range(9):
            drawn.append(index)
            yield X

    list(iterate_batches(counting(), signature=ONE, max_samples=200))
    assert drawn == [0, 1]


def test_endless_sources_need_a_limit():
    source = BatchSource("The loader", lambda: iter([X]), endless=True)
    with pytest.raises(InvalidArgumentError, match="max_samples=1024"):
        CalibrationData(source)


def test_without_a_signature_arrays_pass():
    assert joined(iterate_batches((X.astype(np.float64), Y))).dtype == np.float64
    assert len(joined(iterate_batches([X, B]))) == 2


def test_trailing_axes_of_one_come_and_go_as_in_keras():
    column = InputSignature((InputSpec("x", (None, 1), "float32"),))
    flat = InputSignature((InputSpec("x", (None,), "float32"),))
    assert joined(iterate_batches(Y, signature=column)).shape == (100, 1)
    assert joined(iterate_batches(Y[:, None], signature=flat)).shape == (100,)


def test_open_sizes_take_anything():
    signature = InputSignature((InputSpec("x", (None, None, 2), "float32"),))
    assert joined(iterate_batches(np.ones((40, 7, 2)), signature=signature)).shape == (40, 7, 2)


def test_fixed_batch_sizes_are_kept():
    signature = InputSignature((InputSpec("x", (40, 3), "float32"),))
    with pytest.warns(CalibrationWarning, match="last 20 of 100"):
        batches = list(iterate_batches(X, 7, signature=signature))
    assert [len(batch) for batch in batches] == [40, 40]
    with pytest.raises(InvalidArgumentError, match="batches of 40"):
        CalibrationData(X[:30], signature=signature)
    with pytest.raises(InvalidArgumentError, match="axis 0 is 20, not 40"):
        list(iterate_batches(stream(X), signature=signature))


@pytest.mark.parametrize(
    ("data", "signature", "message"),
    [
        (np.ones((40, 4)), ONE, r"Came: float64 \(32, 4\). Expected: 'x' float32 \(batch, 3\)"),
        (np.ones((40, 2, 3)), ONE, "3 axes, not 2"),
        (np.ones(3), ONE, r"dataset\.batch"),
        ([X, X], ONE, "2 arrays came for 1 input"),
        (X, TWO, "1 arrays came for 2 input"),
        ([X, B], NAMED, r"dict with the keys \['a', 'b'\]"),
        ({"a": X}, NAMED, "nothing is given for 'b'"),
        ({"y": X}, ONE, "nothing is given for 'x'"),
        ((X, B, Y), TWO, "got 3 entries"),
        ((X, Y, Y, Y), ONE, "got 4 entries"),
        ([X, B[:50]], TWO, "input 0: 100, input 1: 50"),
        ({"a": X, "b": B[:50]}, TWO, "a: 100, b: 50"),
        (np.float32(3), ONE, "single number"),
    ],
)
def test_what_does_not_fit_says_what_was_expected(data, signature, message):
    with pytest.raises(InvalidArgumentError, match=message):
        list(iterate_batches(data, signature=signature))


@pytest.mark.parametrize("data", [np.empty((0, 3)), iter(()), [], {}])
def test_nothing_is_an_error(data):
    with pytest.raises(InvalidArgumentError, match="no samples"):
        list(iterate_batches(data, signature=None))


def test_a_generator_used_up_elsewhere_is_an_error():
    used = stream(X)
    list(used)
    with pytest.raises(InvalidArgumentError, match="used once only"):
        list(iterate_batches(used, signature=ONE))


@pytest.mark.parametrize(
    "data",
    [
        ["a text", "another"],
        "a text",
        ("a text", "another"),
        (["a text", "another"], Y),
        np.array(["a text", "another"]),
        np.array(["a", None], dtype=object),
        {"x": ["a text"]},
        iter([["a text", "another"]]),
    ],
)
def test_text_is_refused_with_the_mend(data):
    with pytest.raises(ArgumentTypeError, match="tokenise"):
        list(iterate_batches(data, signature=ONE))


def test_models_of_text_take_text():
    signature = InputSignature((InputSpec("x", (None, 1), "string"),))
    texts = [f"text {index}" for index in range(40)]
    for data in (texts, (texts, Y[:40]), np.array(texts), iter([(texts, Y[:40])])):
        found = joined(iterate_batches(data, signature=signature))
        assert found.shape == (40, 1)
        assert found[3, 0] == "text 3"
    with pytest.raises(ArgumentTypeError, match="takes strings"):
        list(iterate_batches(np.ones((40, 1)), signature=signature))


@pytest.mark.parametrize("data", [[[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0], {"x": [1, 2]}])
def test_lists_of_numbers_are_refused_with_the_mend(data):
    with pytest.raises(ArgumentTypeError, match=r"numpy\.asarray"):
        list(iterate_batches(data, signature=ONE))


def test_other_objects_are_refused():
    with pytest.raises(ArgumentTypeError, match="object, which is no array"):
        CalibrationData(object(), signature=ONE)


@pytest.mark.parametrize(
    ("dtype", "came", "fits"),
    [
        ("float32", np.array([1, 255], np.uint8), True),
        ("float32", np.array([0.1, 2.5]), True),
        ("bfloat16", np.array([0.1, 2.5]), True),
        ("float32", np.array([0.1, 2.5], ml_dtypes.bfloat16), True),
        ("float32", np.array([1e300, 1.0]), False),
        ("float32", np.array([1j, 1.0]), False),
        ("int32", np.array([1.0, 3.0]), True),
        ("int32", np.array([1.0, 3.0], ml_dtypes.bfloat16), True),
        ("int32", np.array([1.5, 3.0]), False),
        ("int32", np.array([np.nan, 3.0]), False),
        ("int32", np.array([2**40, 3]), False),
        ("uint8", np.array([-1, 3]), False),
        ("bool", np.array([0, 1]), True),
        ("bool", np.array([0, 2]), False),
    ],
)
def test_dtypes_are_converted_without_loss_or_not_at_all(dtype, came, fits):
    signature = InputSignature((InputSpec("x", (None,), dtype),))
    if fits:
        found = signature.match(came)
        assert str(found.dtype) == dtype
        np.testing.assert_allclose(found.astype(float), came.astype(float), rtol=1e-2)
    else:
        with pytest.raises(ArgumentTypeError, match="'x'"):
            signature.match(came)


def test_few_samples_warn_once():
    found = CalibrationData(X[:31], signature=ONE)
    with pytest.warns(CalibrationWarning, match="Only 31"):
        list(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(found)
        list(iterate_batches(X[:32], signature=ONE))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("batch_size", 0, InvalidArgumentError),
        ("batch_size", 2.5, ArgumentTypeError),
        ("max_samples", -1, InvalidArgumentError),
        ("max_samples", "9", ArgumentTypeError),
    ],
)
def test_counts_are_checked(name, value, error):
    with pytest.raises(error, match=name):
        CalibrationData(X, **{name: value})
