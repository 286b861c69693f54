from __future__ import annotations

import copy

import pytest

from headrace.common import Configuration
from headrace.errors import ConfigError


def test_a_setting_is_read_in_the_type_asked_for_however_it_was_set() -> None:
    configuration = Configuration().set_integer("i", 7).set_boolean("b", True).set_float("f", 1.5)
    configuration.set_string("text", "12").set_bytearray("bytes", bytearray(b"xy"))
    assert configuration.get_string("b", "") == "true"
    assert configuration.get_integer("text", 0) == 12
    assert configuration.get_float("i", 0) == 7.0
    assert configuration.get_boolean("b", False) is True
    assert configuration.get_bytearray("bytes", bytearray()) == b"xy"


def test_defaults_are_given_for_what_is_not_set() -> None:
    configuration = Configuration()
    assert configuration.get_string("x", "d") == "d"
    assert configuration.get_integer("x", 3) == 3
    assert configuration.get_boolean("x", True) is True
    assert configuration.get_float("x", 2) == 2.0
    assert configuration.get_bytearray("x", bytearray(b"d")) == b"d"


@pytest.mark.parametrize("get", ["get_integer", "get_boolean", "get_float"])
def test_a_value_of_another_type_is_an_error_that_names_key_and_value(get: str) -> None:
    with pytest.raises(ConfigError, match=r"`some.key` is 'many'"):
        getattr(Configuration().set_string("some.key", "many"), get)("some.key", 0)


def test_a_copy_is_independent() -> None:
    configuration = Configuration().set_string("a", "1")
    for twin in (Configuration(configuration), copy.deepcopy(configuration)):
        assert twin == configuration
        twin.set_string("a", "2")
        assert configuration.get_string("a", "") == "1"


def test_add_all_takes_over_the_others_settings_behind_a_prefix() -> None:
    configuration = Configuration().set_string("a", "1").add_all(Configuration().set_string("a", "2"))
    configuration.add_all(Configuration().set_string("b", "3"), "in.")
    assert configuration.to_dict() == {"a": "2", "in.b": "3"}
    assert configuration.key_set() == {"a", "in.b"}
    target = {"c": "4"}
    configuration.add_all_to_dict(target)
    assert target == {"a": "2", "in.b": "3", "c": "4"}


def test_a_removed_setting_is_gone() -> None:
    configuration = Configuration().set_string("a", "1")
    assert configuration.remove_config("a") is True
    assert configuration.remove_config("a") is False
    assert not configuration.contains_key("a")


@pytest.mark.parametrize("value", ["[a, 'b']", "- a\n- b", "a;b"])
def test_list_values_are_read_in_each_of_flinks_forms(value: str) -> None:
    assert Configuration.parse_list_value(value) == ["a", "b"]


def test_a_secret_is_not_shown_in_text_or_errors() -> None:
    configuration = Configuration().set_string("sasl.password", "hunter2").set_string("a", "shown")
    assert "hunter2" not in str(configuration) + repr(configuration)
    assert "shown" in str(configuration)
    with pytest.raises(ConfigError) as error:
        configuration.get_integer("sasl.password", 0)
    assert "hunter2" not in str(error.value)
