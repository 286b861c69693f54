"""Protobuf messages, as protoc would make them, without it."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_TEXT, _NUMBER, _MESSAGE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_MESSAGE,
)


def message_classes(package: str) -> dict[str, Any]:
    """Classes by name, in a package of one's own: two files, and the second, `feeds.proto`, is

    message Other { string text = 1; }
    message Item {
      string url = 1;
      map<string, int64> counts = 2;
      message Author { string name = 1; int64 number = 2; }
      Author author = 3;
      places.Place place = 4;
    }
    """
    places = FileDescriptorProto(name=f"{package}/places.proto", package=f"{package}.places", syntax="proto3")
    place = places.message_type.add(name="Place")
    place.field.add(name="city", number=1, type=_TEXT, label=1)

    feeds = FileDescriptorProto(name=f"{package}/feeds.proto", package=package, syntax="proto3")
    feeds.dependency.append(places.name)
    other = feeds.message_type.add(name="Other")
    other.field.add(name="text", number=1, type=_TEXT, label=1)
    item = feeds.message_type.add(name="Item")
    item.field.add(name="url", number=1, type=_TEXT, label=1)
    item.field.add(name="counts", number=2, type=_MESSAGE, label=3, type_name=f".{package}.Item.CountsEntry")
    item.field.add(name="author", number=3, type=_MESSAGE, label=1, type_name=f".{package}.Item.Author")
    item.field.add(name="place", number=4, type=_MESSAGE, label=1, type_name=f".{package}.places.Place")
    entry = item.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_TEXT, label=1)
    entry.field.add(name="value", number=2, type=_NUMBER, label=1)
    author = item.nested_type.add(name="Author")
    author.field.add(name="name", number=1, type=_TEXT, label=1)
    author.field.add(name="number", number=2, type=_NUMBER, label=1)

    pool = DescriptorPool()
    pool.Add(places)
    pool.Add(feeds)
    names = ("Other", "Item", "Item.Author", "places.Place")
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names}
