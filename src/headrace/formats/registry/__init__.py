"""Keys and values whose schemas are in a Confluent Schema Registry, or one that speaks its language.

| module | holds |
|---|---|
| `client` | `Registry`: settings, and everything that a registry is asked |
| `wire` | what stands before the bytes |
| `schema` | what all kinds have in common; `SubjectNameStrategy` |
| `avro`, `json`, `protobuf` | the schemas that programs use |

Only `client` knows confluent-kafka's client for registries.
"""
