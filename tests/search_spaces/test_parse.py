"""Hostile documents: each is refused with a place and a reason, none crashes or takes long."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.faults import SpecError
from search_spaces.parse import MAX_BYTES, parse_document, parse_spec
from search_spaces.refusals import pointer_to

GOOD = {
    "name": "a search",
    "network": {"family": "mobilenet_v1", "input": [1, 28, 28]},
    "dataset": {"name": "fashion_mnist"},
    "space": {"prune_ratio": {"high": 0.5}},
    "objectives": [{"metric": "accuracy", "direction": "maximize"}],
}


def refusal(body, *, yaml=False):
    with pytest.raises(SpecError) as caught:
        parse_document(body, yaml=yaml)
    (fault,) = caught.value.faults
    return fault


def faults_of(**changes):
    with pytest.raises(SpecError) as caught:
        parse_spec({**GOOD, **changes})
    return {fault.pointer: fault.message for fault in caught.value.faults}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc é~/"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc~/ "), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_is_read_as_what_it_says(value):
    assert parse_document(json.dumps(value).encode(), yaml=False) == value


def test_yaml_reads_what_json_says():
    assert parse_document(json.dumps(GOOD).encode(), yaml=True) == GOOD


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused(body, yaml):
    try:
        value = parse_document(body, yaml=yaml)
    except SpecError as error:
        value = error.faults[0].message
    assert isinstance(value, str | int | float | dict | list | None)


@pytest.mark.parametrize("yaml", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 60 + b"]" * 60,
    ],
)
def test_deep_nesting_is_refused_at_once(body, yaml):
    started = time.process_time()
    assert "nested more than 50 deep" in refusal(body, yaml=yaml).message
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("yaml", [False, True])
def test_long_documents_are_refused_unread(yaml):
    assert "at most 1,048,576" in refusal(b" " * (MAX_BYTES + 1), yaml=yaml).message


@pytest.mark.parametrize("body", [b"- a\n" * 250_000, b"[" + b"0," * 250_000 + b"0]"])
@pytest.mark.parametrize("yaml", [False, True])
def test_documents_of_very_many_values_are_refused(body, yaml):
    if body.startswith(b"-") and not yaml:
        body = json.dumps(["a"] * 120_000).encode()
    assert "50,000 values" in refusal(body, yaml=yaml).message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"1" * 5_000, "digits"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(body, message):
    fault = refusal(body)
    assert message in fault.message
    assert fault.pointer == ""


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        (b'{"a": [1, 1e999]}', "/a/1", "not a finite number"),
        (b'{"a": {"b/c": "\\ud800"}}', "/a/b~1c", "surrogate"),
        (b'{"a": "\\u0000"}', "/a", "NUL"),
        (b'{"\\u0000": 1}', "", "key"),
    ],
)
def test_values_that_nothing_could_store_are_pointed_at(body, pointer, message):
    fault = refusal(body)
    assert fault.pointer == pointer
    assert message in fault.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a: [", "line"),
        (b"a: &x [1]\nb: *x", "line 2: aliases"),
        (b"a: !!python/object/apply:os.system [ls]", "constructor"),
        (b"a: .nan", "finite"),
        (b"a: -.inf", "finite"),
        (b"a: 2026-01-01", "date"),
        (b"a: 2026-99-99", "month"),
        (b"1: 2", "not text"),
        (b"? [1, 2]\n: 3", "unhashable"),
        (b"a: !!binary aGk=", "bytes"),
        (b"a: !!set {b}", "set"),
        (b"--- 1\n--- 2", "document"),
        (b"a: b: c", "line 1, column 5"),
    ],
)
def test_yaml_that_is_more_than_json_is_refused(body, message):
    assert message in refusal(body, yaml=True).message


def test_a_byte_order_mark_and_comments_are_fine():
    assert parse_document(b"\xef\xbb\xbf{}", yaml=False) == {}
    assert parse_document(b"# nothing\na: 1 # one\n", yaml=True) == {"a": 1}


def test_a_good_spec_has_the_defaults():
    spec = parse_spec(GOOD)
    assert spec.sampler.name == "auto"
    assert spec.device is None


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_a_spec_is_an_object(data):
    with pytest.raises(SpecError, match="write an object with keys such as name, network, dataset"):
        parse_spec(data)


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"bugdet": {}}, "/bugdet", "did you mean budget"),
        ({"qqqqqqqq": {}}, "/qqqqqqqq", "leave it out"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown key"),
        ({"space": {"prune_ratio": {"hihg": 0.5}}}, "/space/prune_ratio/hihg", "did you mean high"),
        ({"space": {"prune_ratio": {}}}, "/space/prune_ratio/high", "missing"),
        ({"space": {"prune_ratio": {"high": 1.0}}}, "/space/prune_ratio/high", "a number below 1, not 1.0"),
        ({"space": {"prune_ratio": {"low": 0.5, "high": 0.1}}}, "/space/prune_ratio", "high must be at least low"),
        ({"space": {"prune_ratio": {"high": 0.9, "step": 1e-9}}}, "/space/prune_ratio", "1,000 ratios"),
        ({"space": {"precision": {"choices": []}}}, "/space/precision/choices", "at least 1"),
        ({"network": {"family": "alexnet", "input": [1, 28, 28]}}, "/network/family", "mobilenet_v1"),
        ({"network": {"family": "vgg_13", "input": [1, 28]}}, "/network/input/2", "too short: add a value"),
        ({"network": {"family": "vgg_13", "input": [1, 0, 28]}}, "/network/input/1", "at least 1, not 0"),
        ({"objectives": []}, "/objectives", "at least 1"),
        ({"objectives": [{"metric": "latency_s", "direction": "minimize"}]}, "/objectives/0", "needs `device`"),
        ({"objectives": GOOD["objectives"] * 2}, "", "metric of its own"),
        ({"limits": [{"metric": "macs"}]}, "/limits/0", "exactly one"),
        ({"limits": [{"metric": "macs", "max": float("nan")}]}, "/limits/0/max", "finite"),
        ({"limits": [{"metric": "macs", "max": float("inf")}]}, "/limits/0/max", "finite"),
        ({"budget": {"trials": 0}}, "/budget/trials", "at least 1, not 0"),
        ({"budget": {"trials": 10**400}}, "/budget/trials", "at most 100000, not 1000"),
        ({"name": "../etc/passwd"}, "/name", "write letters, digits"),
        ({"evaluation": "x"}, "/evaluation", "write an object with keys such as reconstruct"),
    ],
)
def test_each_bad_field_is_pointed_at(changes, pointer, message):
    assert message in faults_of(**changes)[pointer]


def test_all_bad_fields_are_found_at_once_up_to_a_limit():
    assert set(faults_of(x=1, name="", budget={"trials": 0})) == {"/x", "/name", "/budget/trials"}
    assert len(faults_of(**{f"x{number}": 1 for number in range(500)})) == 50


def test_pointers_escape_as_the_standard_says():
    assert pointer_to(("a/b", 0, "m~n")) == "/a~1b/0/m~0n"
    assert pointer_to(()) == ""


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"name": 3}, "/name", "write text, not 3"),
        ({"name": "/etc"}, "/name", "write letters, digits, spaces and . _ - that begin"),
        ({"network": "vgg_13"}, "/network", "write an object with keys such as family, width, input, not 'vgg_13'"),
        ({"network": {"family": "vgg13", "input": [1, 28, 28]}}, "/network/family", "did you mean vgg_13? write"),
        ({"network": {"family": "vgg_13", "input": [1, 28]}}, "/network/input/2", "too short: add a value"),
        ({"network": {"family": "vgg_13", "input": "1,28,28"}}, "/network/input", "write a list, in brackets, not"),
        ({"network": {"name": "mine", "family": "vgg_13"}}, "/network/family", "does not belong here; leave it out"),
        ({"space": {"prune_ratio": 0.5}}, "/space/prune_ratio", "write an object with keys such as low, high, step"),
        ({"space": {"precision": {"choices": []}}}, "/space/precision/choices", "at least 1 value, not of 0"),
        (
            {"space": {"precision": {"choices": [8, 4, 2]}}},
            "/space/precision/choices/0",
            "not 8 (and so on: 2 more",
        ),
        (
            {"space": {"weight_bits": {"choices": ["x"]}}},
            "/space/weight_bits/choices/0",
            "a whole number, not",
        ),
        ({"objectives": ["accuracy"]}, "/objectives/0", "keys such as metric, direction, device, not 'accuracy'"),
        ({"evaluation": {"finetune_epochs": -1}}, "/evaluation/finetune_epochs", "a number of at least 0, not -1"),
        ({"evaluation": {"importence": "l1"}}, "/evaluation/importence", "unknown key; did you mean importance?"),
        ({"budget": {"wall_time_s": "1h"}}, "/budget/wall_time_s", "write a number, not '1h'"),
        ({"recipe": {"regulariser": {"name": "linf"}}}, "/recipe/regulariser/name", "did you mean l_inf?"),
    ],
)
def test_one_fault_is_told_once_in_plain_words(changes, pointer, message):
    faults = faults_of(**changes)
    assert list(faults) == [pointer]
    assert message in faults[pointer]


@given(json_values, st.sampled_from(["name", "network", "space", "objectives", "evaluation", "budget", "recipe"]))
def test_no_fault_is_told_in_the_words_of_the_parser(value, part):
    try:
        parse_spec({**GOOD, part: value})
    except SpecError as error:
        for fault in error.faults:
            assert not re.search("Input should|should have|valid (string|tuple|dictionary)", fault.message)
